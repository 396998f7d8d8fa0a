//! Shows which kernels serve the model, and that the text is that of the built-in ones.

use macro_user::{Failure, kernels, open, open_plain, tell, write_model};

/// Long enough that it is read by gemm kernels.
const PROMPT: &str = "a prompt of more than a few tokens, whatever they are";

fn main() -> Result<(), Failure> {
    println!("{} kernels are exact on this CPU", kernels::check_all()?.len());
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("tiny.gguf");
    write_model(&file)?;
    let model = open(&file)?;
    for (layer, choice) in model.kernels() {
        println!("{layer:12} {} {} ({})", choice.shape, choice.kernel.kernel().text, choice.reason);
    }
    let text = tell(&model, PROMPT)?;
    println!("{text:?}");
    match text == tell(&open_plain(&file)?, PROMPT)? {
        true => println!("the built-in kernels tell the same"),
        false => return Err("the built-in kernels tell another text".into()),
    }
    Ok(())
}
