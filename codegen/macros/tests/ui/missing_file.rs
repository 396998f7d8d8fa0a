fn main() {}

trilut_macros::kernels! {
    model = "no-such-file.toml";
}
