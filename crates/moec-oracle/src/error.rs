//! What a caller can get wrong: inputs and weights that do not fit the module.

use miette::Diagnostic;
use thiserror::Error;

/// Why a pass could not be evaluated.
#[derive(Clone, Debug, PartialEq, Error, Diagnostic)]
pub enum EvalError {
    #[error("the model has no input `{name}`")]
    #[diagnostic(code(moec::run::unknown_input), help("its inputs are {known}"))]
    UnknownInput { name: String, known: String },

    #[error("input `{name}` is given twice")]
    #[diagnostic(code(moec::run::repeated_input))]
    RepeatedInput { name: String },

    #[error("input `{name}` is missing")]
    #[diagnostic(code(moec::run::missing_input), help("it is {wants}"))]
    MissingInput { name: String, wants: String },

    #[error("input `{name}` is {found}, the model takes {wants}")]
    #[diagnostic(code(moec::run::input_type))]
    InputType { name: String, found: String, wants: String },

    #[error("axis `{axis}` has size {first} in input `{first_input}` and {second} in input `{second_input}`")]
    #[diagnostic(code(moec::run::sizes_disagree), help("an axis has one size throughout the model"))]
    SizesDisagree { axis: String, first_input: String, first: usize, second_input: String, second: usize },

    #[error("{source_name} holds {value}{position}, but axis `{axis}` has indices 0 to {}", limit.saturating_sub(1))]
    #[diagnostic(code(moec::run::index_out_of_range))]
    IndexOutOfRange {
        /// `` input `ids` ``, or what the module calls the value.
        source_name: String,
        /// `` at S = 3``, with a leading space; empty for a scalar.
        position: String,
        value: i32,
        axis: String,
        limit: usize,
    },

    #[error("the {choices} largest along axis `{axis}` are wanted, which has {size} positions in this pass")]
    #[diagnostic(code(moec::run::too_few_to_choose_from), help("give at least {choices} positions"))]
    TooFewToChooseFrom { axis: String, size: usize, choices: usize },

    #[error("axis `{axis}` has {now} positions in this pass and had {before} in the one before")]
    #[diagnostic(
        code(moec::run::size_changed),
        help("what a session keeps of earlier passes must go on with the same sizes")
    )]
    SizeChanged { axis: String, before: usize, now: usize },

    #[error("a value of {elements} elements is too large to evaluate")]
    #[diagnostic(code(moec::run::too_large), help("give fewer positions"))]
    TooLarge { elements: u128 },

    #[error("no weights for `{path}`")]
    #[diagnostic(code(moec::run::missing_weights))]
    MissingWeights {
        /// With the instance's indices filled in: `layers[3].ffn.experts[1].up`.
        path: String,
    },

    #[error("the weights for `{path}` are {found}, the model takes {wants}")]
    #[diagnostic(code(moec::run::weights_type))]
    WeightsType { path: String, found: String, wants: String },
}
