fn main() {}

trilut_macros::kernels! {
    model = "bitnet-2b";
}
