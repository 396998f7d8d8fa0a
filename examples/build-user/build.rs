//! Generates kernels for every layer of the model in `tiny.toml`, in two formats.

use trilut_build::Format;

fn main() {
    trilut_build::kernels()
        .model("tiny.toml")
        .formats([Format::I2S, Format::Tl2])
        .library("::trilut::kernels")
        .compile();
}
