//! The guides in `docs` name files that are there.

use std::path::Path;

#[test]
fn every_file_that_a_guide_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let bases = [
        "",
        "codegen/src",
        "kernels/src",
        "codegen/src/spelling",
        "kernels/src/lanes",
        "presets/src",
    ]
    .map(|base| root.join(base));
    for guide in ["docs/adding-a-format.md", "docs/adding-an-isa.md"] {
        let text = std::fs::read_to_string(root.join(guide)).unwrap();
        // Every other piece between backquotes is code.
        let code = text.split('`').skip(1).step_by(2);
        let is_file =
            |word: &&str| word.ends_with(".rs") || word.ends_with(".md") || word.ends_with('/');
        let files: Vec<&str> = code.filter(is_file).filter(|word| !word.contains(' ')).collect();
        assert!(files.len() > 10, "{guide}: {files:?}");
        for file in files {
            assert!(bases.iter().any(|base| base.join(file).exists()), "{guide} names {file}");
        }
    }
}
