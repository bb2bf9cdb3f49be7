//! Compiles the model: its family's spec, with the sizes and weights of examples/bard.

fn main() -> Result<(), moec_build::Error> {
    moec_build::Model::new("../../families/qwen3_moe.moe").weights("../../bard").build()
}
