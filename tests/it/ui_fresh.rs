//! `ui/dist` is built from the sources that stand beside it. The algorithm is that of `ui/source-hash.mjs`.

use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

fn files_below(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files_below(&path, files) } else { files.push(path) }
    }
}

#[test]
fn the_embedded_ui_is_built_from_its_sources() {
    let ui = Path::new(env!("CARGO_MANIFEST_DIR")).join("ui");
    let mut files = vec![ui.join("index.html"), ui.join("package-lock.json")];
    files_below(&ui.join("src"), &mut files);
    let mut named: Vec<(String, PathBuf)> =
        files.into_iter().map(|path| (path.strip_prefix(&ui).unwrap().to_str().unwrap().to_owned(), path)).collect();
    named.sort();
    let mut hash = Sha256::new();
    for (name, path) in named {
        let bytes = fs::read(path).unwrap();
        hash.update(name.as_bytes());
        hash.update(b"\0");
        hash.update(bytes.len().to_string().as_bytes());
        hash.update(b"\0");
        hash.update(&bytes);
    }
    let built = fs::read_to_string(ui.join("dist/SOURCE")).unwrap();
    assert_eq!(built.trim(), format!("{:x}", hash.finalize()), "run `npm ci && npm run build` in ui/");
}
