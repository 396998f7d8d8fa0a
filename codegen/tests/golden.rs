//! Six representative kernels, as text: whatever changes what is generated shows itself here, and that
//! records of presets claim no measurement for it any more.

use std::path::Path;
use trilut_codegen::Named;

#[test]
fn representative_kernels_are_generated_as_they_were() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut count = 0;
    for file in std::fs::read_dir(&dir).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let kernel: Named = name.parse().unwrap();
        let (old, new) = (std::fs::read_to_string(&path).unwrap(), kernel.emit().text);
        if let Some(line) = old.lines().zip(new.lines()).position(|(old, new)| old != new) {
            let old = old.lines().nth(line).unwrap_or_default();
            let new = new.lines().nth(line).unwrap_or_default();
            panic!(
                "{name} differs first in line {}:\n  {old}\n  {new}\nif that is meant: \
                 trilut codegen --kernel {name} > codegen/tests/golden/{name}.rs",
                line + 1
            );
        }
        assert_eq!(old.len(), new.len(), "{name} has another length");
        assert_eq!(kernel.emit().text, new, "{name} is not always the same");
        count += 1;
    }
    assert_eq!(count, 6);
}
