//! Tunes the model, shows which kernels serve it, and that the text is that of the built-in ones.

use build_user::{Failure, kernels, open, open_plain, tell, tuned, write_model};

fn main() -> Result<(), Failure> {
    println!("{} kernels are exact on this CPU", kernels::check_all()?.len());
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("tiny.gguf");
    write_model(&file)?;
    let model = open(&file, Some(tuned(&file)?))?;
    for (layer, choice) in model.kernels() {
        let kernel = choice.kernel.kernel();
        let own = if kernels::REGISTRY.has(kernel) { "own" } else { "built in" };
        println!("{layer:12} {} {} {own} ({})", choice.shape, kernel.text, choice.reason);
    }
    let text = tell(&model, "hello")?;
    println!("{text:?}");
    match text == tell(&open_plain(&file)?, "hello")? {
        true => println!("the built-in kernels tell the same"),
        false => return Err("the built-in kernels tell another text".into()),
    }
    Ok(())
}
