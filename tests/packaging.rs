//! What packages are made of: completions, man pages.

mod common;

use common::{Sandbox, stderr};

#[test]
fn shells_and_man_know_every_command() {
    let sandbox = Sandbox::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = sandbox.command(&["completions", shell]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && text.contains("serve"), "{shell}: {text}");
    }
    let unknown = sandbox.command(&["completions", "tcsh"]).output().unwrap();
    assert_eq!(unknown.status.code(), Some(2), "{}", stderr(&unknown));

    let pages = sandbox.path("man/pages");
    let directory = pages.to_str().unwrap();
    assert!(sandbox.command(&["man", directory]).output().unwrap().status.success());
    for page in ["trilut", "trilut-run", "trilut-bench-serve"] {
        let text = std::fs::read_to_string(pages.join(format!("{page}.1"))).unwrap();
        assert!(text.contains(".SH OPTIONS"), "{text}");
    }
    let file = pages.join("trilut.1/below");
    let refused = sandbox.command(&["man", file.to_str().unwrap()]).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("cannot write man pages"), "{}", stderr(&refused));
}
