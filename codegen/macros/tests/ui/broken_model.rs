fn main() {}

trilut_macros::kernels! {
    model = "Cargo.toml";
}
