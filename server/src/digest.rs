//! A name for what a model file holds, as Ollama's clients compare it.

use sha2::{Digest, Sha256};
use std::fmt::Write;
use trilut_runtime::gguf::Gguf;

/// Bytes of each tensor that are looked at.
const SAMPLE: usize = 4096;

/// 64 hexadecimal digits that are the same for the same file: of its head, its length and the beginning of
/// every tensor. The whole is not read, so that serving begins at once.
pub(crate) fn of(gguf: &Gguf) -> String {
    let mut digest = Sha256::new();
    digest.update(gguf.head());
    digest.update((gguf.file_len() as u64).to_le_bytes());
    for tensor in gguf.tensors() {
        let data = gguf.data(tensor);
        digest.update(&data[..data.len().min(SAMPLE)]);
    }
    digest.finalize().iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::of;
    use std::sync::Arc;
    use trilut_runtime::embedded;
    use trilut_runtime::gguf::Gguf;

    #[test]
    fn other_weights_have_another_name() {
        let name = |bytes: Vec<u8>| of(&Gguf::from_bytes(Arc::new(bytes)).unwrap());
        let bytes = embedded::model().to_vec();
        let gguf = Gguf::from_static(embedded::model()).unwrap();
        let own = of(&gguf);
        assert_eq!(own.len(), 64);
        assert_eq!(own, name(bytes.clone()));
        let mut changed = bytes;
        changed[gguf.head().len()] ^= 1;
        assert_ne!(own, name(changed));
    }
}
