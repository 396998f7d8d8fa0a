//! Small checkpoints that tests read, spoil and write, without the converter's own reading.

use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use trilut_presets::models::ModelSpec;
use trilut_runtime::convert::{CheckpointOptions, write_checkpoint};

/// A model of two small layers.
pub(crate) fn spec(architecture: &str, tied: bool) -> ModelSpec {
    let (sub_norms, activation) = match architecture {
        "llama" | "qwen3" => (false, "silu"),
        "gemma3" => (false, "gelu"),
        "bitnet" => (true, "silu"),
        _ => (true, "relu2"),
    };
    let text = format!(
        "name = \"tiny\"\ntitle = \"Tiny\"\narchitecture = \"{architecture}\"\nlayers = 2\nhidden = 256\n\
         ffn = 512\nheads = 4\nkv_heads = 2\nhead_dim = 64\nvocab = 300\ncontext = 64\n\
         rope_theta = 10000.0\neps = 1e-5\ntied = {tied}\nsub_norms = {sub_norms}\n\
         activation = \"{activation}\"\n"
    );
    ModelSpec::from_toml(&text).unwrap()
}

#[derive(Clone)]
pub(crate) struct Tensor {
    pub(crate) dtype: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) bytes: Vec<u8>,
}

/// A checkpoint in one weight file.
pub(crate) struct Checkpoint {
    pub(crate) tensors: BTreeMap<String, Tensor>,
    pub(crate) config: Value,
    pub(crate) tokenizer: Value,
}

/// The upper halves of floats.
pub(crate) fn bf16(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()[2..].to_vec()).collect()
}

impl Checkpoint {
    /// Random packed weights, written to `dir`.
    pub(crate) fn synthetic(spec: &ModelSpec, dir: &Path) -> Self {
        let go = &mut |_, _| ControlFlow::Continue(());
        write_checkpoint(spec, CheckpointOptions::default(), dir, go).unwrap();
        Self::read(dir)
    }

    /// Everything of a directory.
    pub(crate) fn read(dir: &Path) -> Self {
        let json = |name: &str| -> Value {
            serde_json::from_slice(&std::fs::read(dir.join(name)).unwrap()).unwrap()
        };
        let mut tensors = BTreeMap::new();
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|end| end != "safetensors") {
                continue;
            }
            let file = std::fs::read(&path).unwrap();
            let data = 8 + u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
            let header: Map<String, Value> = serde_json::from_slice(&file[8..data]).unwrap();
            for (name, entry) in header {
                let place = |i: usize| data + entry["data_offsets"][i].as_u64().unwrap() as usize;
                let shape = entry["shape"].as_array().unwrap();
                let tensor = Tensor {
                    dtype: entry["dtype"].as_str().unwrap().to_owned(),
                    shape: shape.iter().map(|n| n.as_u64().unwrap() as usize).collect(),
                    bytes: file[place(0)..place(1)].to_vec(),
                };
                tensors.insert(name, tensor);
            }
        }
        Self { tensors, config: json("config.json"), tokenizer: json("tokenizer.json") }
    }

    /// Writes what may have been changed.
    pub(crate) fn write(&self, dir: &Path) {
        let (mut header, mut data) = (Map::new(), Vec::<u8>::new());
        for (name, Tensor { dtype, shape, bytes }) in &self.tensors {
            let end = data.len() + bytes.len();
            let entry = json!({"dtype": dtype, "shape": shape, "data_offsets": [data.len(), end]});
            header.insert(name.clone(), entry);
            data.extend(bytes);
        }
        let header = Value::Object(header).to_string();
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header.as_bytes());
        file.extend(data);
        std::fs::write(dir.join("model.safetensors"), file).unwrap();
        std::fs::write(dir.join("config.json"), self.config.to_string()).unwrap();
        std::fs::write(dir.join("tokenizer.json"), self.tokenizer.to_string()).unwrap();
    }

    /// Sets the scale of a packed tensor.
    pub(crate) fn scale(&mut self, name: &str, scale: f32) {
        self.tensors.get_mut(&format!("{name}_scale")).unwrap().bytes = bf16(&[scale]);
    }

    /// The values of a bf16 tensor.
    pub(crate) fn bf16s(&self, name: &str) -> Vec<f32> {
        let tensor = &self.tensors[name];
        assert_eq!(tensor.dtype, "BF16");
        tensor.bytes.chunks(2).map(|b| f32::from_le_bytes([0, 0, b[0], b[1]])).collect()
    }

    /// The codes of a packed tensor, row by row: byte (r, c) holds rows r, r + m/4, .. from the low bits up.
    pub(crate) fn unpacked(&self, name: &str) -> Vec<u8> {
        let tensor = &self.tensors[name];
        let [quarter, k] = tensor.shape[..] else { panic!("{name} is no matrix") };
        let code = |row: usize, column: usize| {
            tensor.bytes[row % quarter * k + column] >> (2 * (row / quarter)) & 3
        };
        (0..4 * quarter)
            .flat_map(|row| (0..k).map(move |column| (row, column)))
            .map(|(r, c)| code(r, c))
            .collect()
    }
}
