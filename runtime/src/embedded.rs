//! The demo model that is part of the program, so that everything works without a download.

/// Bytes at the alignment of a cache line, so that tensors of the file are executed in place.
#[repr(C, align(64))]
struct Aligned<T: ?Sized>(T);

static MODEL: &Aligned<[u8]> = &Aligned(*include_bytes!("../assets/demo.gguf"));

/// The bytes of the embedded model's GGUF file, aligned to 64.
pub fn model() -> &'static [u8] {
    &MODEL.0
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_file_begins_at_a_cache_line() {
        let bytes = super::model();
        assert!(bytes.starts_with(b"GGUF"));
        assert!(bytes.as_ptr().addr().is_multiple_of(64));
    }
}
