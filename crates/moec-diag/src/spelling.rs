//! "Did you mean": the nearest of the names that would have been right.

/// The candidate closest to what was written, if one is close enough to be what was meant.
pub fn closest<'a>(written: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    const LONGEST: usize = 128;
    if written.len() > LONGEST {
        return None;
    }
    let mut best: Option<(usize, &str)> = None;
    for candidate in candidates {
        if candidate == written || candidate.len() > LONGEST {
            continue;
        }
        let distance = match candidate.eq_ignore_ascii_case(written) {
            true => 0,
            false => strsim::osa_distance(written, candidate),
        };
        if best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, candidate));
        }
    }
    // One slip in a short name, one in three letters of a long one; never a wholly different word.
    let (distance, name) = best?;
    let (shorter, longer) =
        (written.chars().count().min(name.chars().count()), written.chars().count().max(name.chars().count()));
    let slips = if shorter < 3 { 0 } else { (longer / 3).max(1) };
    // Two words that begin otherwise are seldom one mistyped.
    let begins_alike =
        written.chars().next().map(|c| c.to_ascii_lowercase()) == name.chars().next().map(|c| c.to_ascii_lowercase());
    (distance <= slips && (distance < 2 || begins_alike)).then_some(name)
}

/// The `help` of an unknown name.
pub fn did_you_mean<'a>(written: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    closest(written, candidates).map(|name| format!("did you mean `{name}`?"))
}

/// `` `a`, `b` ``, the first few of many.
pub fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    const SHOWN: usize = 12;
    let mut text = String::new();
    for (at, name) in names.into_iter().enumerate() {
        if at == SHOWN {
            text.push_str(", …");
            break;
        }
        text.push_str(if at == 0 { "`" } else { ", `" });
        text.push_str(name);
        text.push('`');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_meant_and_nothing_else() {
        assert_eq!(closest("sofmax", ["softmax", "sigmoid"]), Some("softmax"));
        assert_eq!(closest("vocab_sise", ["hidden_size", "vocab_size"]), Some("vocab_size"));
        assert_eq!(closest("kv", ["KV", "H"]), Some("KV"));
        assert_eq!(closest("banana", ["softmax", "sigmoid"]), None);
        assert_eq!(closest("a", ["b"]), None);
    }
}
