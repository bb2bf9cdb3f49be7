//! A run reports every problem it finds, not only the first.

use miette::Diagnostic;

/// Something the user can mend: a struct with its facts, beside the check that finds it.
pub type Problem = Box<dyn Diagnostic + Send + Sync + 'static>;

/// The problems found so far, in the order of discovery.
#[derive(Debug, Default)]
pub struct Problems {
    found: Vec<Problem>,
}

impl Problems {
    pub fn report(&mut self, problem: impl Diagnostic + Send + Sync + 'static) {
        self.found.push(Box::new(problem));
    }

    pub fn push(&mut self, problem: Problem) {
        self.found.push(problem);
    }

    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    pub fn len(&self) -> usize {
        self.found.len()
    }

    pub fn append(&mut self, mut other: Problems) {
        self.found.append(&mut other.found);
    }

    pub fn into_vec(self) -> Vec<Problem> {
        self.found
    }

    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.found.iter()
    }
}
