//! A folder to run the program in.

use std::path::Path;
use std::process::{Command, Stdio};

pub(crate) struct Place(tempfile::TempDir);

impl Place {
    pub(crate) fn empty() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path().join(name), text).unwrap();
    }

    /// The program in this folder, whatever the environment says to it.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rivus"));
        command.args(arguments).current_dir(self.path()).stdin(Stdio::null());
        let names = std::env::vars().map(|(name, _)| name);
        let speaks =
            |name: &String| name.starts_with("RIVUS_") || ["RUST_LOG", "CARGO_PKG_NAME"].contains(&&**name);
        for name in names.filter(speaks) {
            command.env_remove(name);
        }
        command
    }
}
