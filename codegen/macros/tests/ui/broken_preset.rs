fn main() {}

trilut_macros::kernels! {
    shapes = [64 x 256];
    preset = "Cargo.toml";
}
