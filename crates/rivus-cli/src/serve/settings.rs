//! What a hub is told: by options, by variables, by a file. An option goes before its variable, that before the file.

use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result};
use clap::Args;
use clap::builder::BoolishValueParser;
use rivus::Restore;
use serde::Deserialize;

use super::grants::{FileGrant, at_line};
use crate::args::Global;
use crate::assignment::Grant;

/// How a hub is run. Each option has a variable of its name in capitals after `RIVUS_`, and a key in the file.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Serve {
    /// Read what is not given here from this TOML file: --tls-cert is `tls_cert = "…"` there
    #[arg(long, value_name = "FILE", env = "RIVUS_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Check options, variables, files and schema, say what they come to, and end
    #[arg(long)]
    pub(crate) check_config: bool,
    /// Where to listen; port 0 takes a free one [default: 127.0.0.1:7171]
    #[arg(long, value_name = "ADDRESS", env = "RIVUS_LISTEN")]
    pub(crate) listen: Option<String>,
    /// Answer /health/live, /health/ready and /metrics here, where strangers must not come, such as 127.0.0.1:9191
    #[arg(long, value_name = "ADDRESS", env = "RIVUS_ADMIN")]
    pub(crate) admin: Option<String>,
    /// Let in who shows this token, with this rank (0 to 255), as this subject; may be repeated
    #[arg(long, value_name = "TOKEN=RANK[:SUBJECT]", env = "RIVUS_GRANT", hide_env_values = true)]
    pub(crate) grant: Vec<Grant>,
    /// Let in everybody without a token, with rank 0; taken for granted on loopback if nothing is granted
    #[arg(long, value_name = "BOOL", env = "RIVUS_OPEN", value_parser = BoolishValueParser::new(),
        num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) open: Option<bool>,
    /// Who may bring back, unjudged, what a restored hub has lost: nobody, everybody, or subjects with commas between
    /// [default: everybody on an open hub without tokens, else nobody]
    #[arg(long, value_name = "WHO", env = "RIVUS_RESTORE")]
    pub(crate) restore: Option<WhoRestores>,
    /// Let pages of this origin connect from browsers, such as https://app.example.org; may be repeated
    #[arg(long, value_name = "ORIGIN", env = "RIVUS_ALLOW_ORIGIN", value_delimiter = ',')]
    pub(crate) allow_origin: Option<Vec<String>>,
    /// Serve as one among equals, not as the authority that judges edits
    #[arg(long, value_name = "BOOL", env = "RIVUS_PEER", value_parser = BoolishValueParser::new(),
        num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) peer: Option<bool>,
    /// Speak TLS with this certificate, in PEM: the chain, the hub's own first
    #[arg(long, value_name = "FILE", env = "RIVUS_TLS_CERT", help_heading = "TLS")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// Its private key, in PEM
    #[arg(long, value_name = "FILE", env = "RIVUS_TLS_KEY", help_heading = "TLS")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Let in who shows a JSON Web Token signed by one of these keys, a JWKS
    #[arg(long, value_name = "FILE", env = "RIVUS_JWT_KEYS", help_heading = "Signed tokens")]
    pub(crate) jwt_keys: Option<PathBuf>,
    /// Whose tokens are taken (iss)
    #[arg(long, value_name = "NAME", env = "RIVUS_JWT_ISSUER", help_heading = "Signed tokens")]
    pub(crate) jwt_issuer: Option<String>,
    /// For whom tokens must be (aud)
    #[arg(long, value_name = "NAME", env = "RIVUS_JWT_AUDIENCE", help_heading = "Signed tokens")]
    pub(crate) jwt_audience: Option<String>,
    /// The claim with the rank [default: rivus_rank]
    #[arg(long, value_name = "CLAIM", env = "RIVUS_JWT_RANK_CLAIM", help_heading = "Signed tokens")]
    pub(crate) jwt_rank_claim: Option<String>,
    /// How far the clocks of issuer and hub may differ [default: 60]
    #[arg(long, value_name = "SECONDS", env = "RIVUS_JWT_LEEWAY", help_heading = "Signed tokens")]
    pub(crate) jwt_leeway: Option<u32>,
    /// Connections at once [default: 1024]
    #[arg(long, value_name = "N", env = "RIVUS_CONNECTIONS_MAX", help_heading = "Limits")]
    pub(crate) connections_max: Option<usize>,
    /// Connections at once of one address [default: 256, and no bound on loopback]
    #[arg(long, value_name = "N", env = "RIVUS_ADDRESS_CONNECTIONS_MAX", help_heading = "Limits")]
    pub(crate) address_connections_max: Option<usize>,
    /// New connections of one address in a second [default: 16, and no bound on loopback]
    #[arg(long, value_name = "N", env = "RIVUS_ADDRESS_RATE", help_heading = "Limits")]
    pub(crate) address_rate: Option<u32>,
    /// New connections of one address at once [default: 256, and no bound on loopback]
    #[arg(long, value_name = "N", env = "RIVUS_ADDRESS_BURST", help_heading = "Limits")]
    pub(crate) address_burst: Option<u32>,
    /// Registers that one principal may send in a second [default: any number]
    #[arg(long, value_name = "N", env = "RIVUS_REGISTERS_RATE", help_heading = "Limits")]
    pub(crate) registers_rate: Option<u32>,
    /// The longest value, in bytes [default: as long as an edit may be, 4 MiB]
    #[arg(long, value_name = "BYTES", env = "RIVUS_VALUE_BYTES_MAX", help_heading = "Limits")]
    pub(crate) value_bytes_max: Option<usize>,
    /// The longest frame, in bytes after decompression [default: 33554432]
    #[arg(long, value_name = "BYTES", env = "RIVUS_FRAME_BYTES_MAX", help_heading = "Limits")]
    pub(crate) frame_bytes_max: Option<usize>,
    /// Registers of one edit, and of one push [default: 131072]
    #[arg(long, value_name = "N", env = "RIVUS_REGISTERS_MAX", help_heading = "Limits")]
    pub(crate) registers_max: Option<usize>,
    /// Scopes that one connection may follow by name [default: 64]
    #[arg(long, value_name = "N", env = "RIVUS_SCOPES_MAX", help_heading = "Limits")]
    pub(crate) scopes_max: Option<usize>,
    /// Time to become a WebSocket, and as long again to say hello [default: 10]
    #[arg(long, value_name = "SECONDS", env = "RIVUS_HANDSHAKE_MAX", help_heading = "Limits")]
    pub(crate) handshake_max: Option<u32>,
    /// Wait so long for a database that was connected before forgetting what it has to be told [default: 90]
    #[arg(long, value_name = "DAYS", env = "RIVUS_LEASE", help_heading = "Collection")]
    pub(crate) lease: Option<u32>,
    /// Forget what is deleted for everybody this often; 0 for never [default: 24]
    #[arg(long, value_name = "HOURS", env = "RIVUS_COLLECT", help_heading = "Collection")]
    pub(crate) collect: Option<u32>,
    /// Keep what was deleted for at least so long: longer than the oldest backup that may be restored [default: 30]
    #[arg(long, value_name = "DAYS", env = "RIVUS_GRACE", help_heading = "Collection")]
    pub(crate) grace: Option<u32>,
    /// Not ready while fewer bytes are free on the disk [default: 67108864]
    #[arg(long, value_name = "BYTES", env = "RIVUS_DISK_FREE_MIN", help_heading = "Limits")]
    pub(crate) disk_free_min: Option<u64>,
    /// When told to end, be not ready for so long before clients are told goodbye [default: 0]
    #[arg(long, value_name = "SECONDS", env = "RIVUS_ANNOUNCE", help_heading = "Limits")]
    pub(crate) announce: Option<u32>,
    /// Then wait for clients no longer than this [default: 10]
    #[arg(long, value_name = "SECONDS", env = "RIVUS_DRAIN", help_heading = "Limits")]
    pub(crate) drain: Option<u32>,
    /// Log as JSON
    #[arg(long, value_name = "BOOL", env = "RIVUS_LOG_JSON", value_parser = BoolishValueParser::new(),
        num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) log_json: Option<bool>,
    /// Tokens of the file.
    #[arg(skip)]
    pub(crate) grants: Vec<FileGrant>,
}

/// Who may bring back what a hub has lost. In the file it may be a list of subjects, too.
#[derive(Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(from = "Words")]
pub(crate) struct WhoRestores(pub(crate) Restore);

#[derive(Deserialize)]
#[serde(untagged)]
enum Words {
    One(String),
    All(Vec<String>),
}

impl From<Words> for WhoRestores {
    fn from(words: Words) -> Self {
        match words {
            Words::One(word) => Self::of(&word),
            Words::All(subjects) => Self(Restore::subjects(subjects)),
        }
    }
}

impl WhoRestores {
    fn of(word: &str) -> Self {
        Self(match word.trim() {
            "nobody" => Restore::Nobody,
            "everybody" => Restore::Everybody,
            subjects => {
                let subjects = subjects.split(',').map(str::trim).filter(|subject| !subject.is_empty());
                Restore::subjects(subjects)
            }
        })
    }
}

impl FromStr for WhoRestores {
    type Err = std::convert::Infallible;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        Ok(Self::of(word))
    }
}

/// Declares what may be in the file, and how it fills what was not given: values, and paths from the file's folder on.
macro_rules! file {
    (values { $($value:ident: $type:ty),* $(,)? } paths { $($path:ident),* $(,)? }) => {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct File {
            db: Option<PathBuf>,
            schema: Option<PathBuf>,
            #[serde(default)]
            grants: Vec<FileGrant>,
            $($value: Option<$type>,)*
            $($path: Option<PathBuf>,)*
        }

        impl File {
            fn fill(self, folder: &Path, serve: &mut Serve, global: &mut Global) {
                if let Some(db) = self.db.filter(|_| !global.db_is_given) {
                    global.db = folder.join(db);
                }
                fill(&mut global.schema, self.schema.map(|path| folder.join(path)));
                $(fill(&mut serve.$value, self.$value);)*
                $(fill(&mut serve.$path, self.$path.map(|path| folder.join(path)));)*
                // Tokens that are given are those that are meant.
                if serve.grant.is_empty() {
                    serve.grants = self.grants;
                }
            }
        }
    };
}

file! {
    values {
        listen: String,
        admin: String,
        open: bool,
        restore: WhoRestores,
        allow_origin: Vec<String>,
        peer: bool,
        jwt_issuer: String,
        jwt_audience: String,
        jwt_rank_claim: String,
        jwt_leeway: u32,
        connections_max: usize,
        address_connections_max: usize,
        address_rate: u32,
        address_burst: u32,
        registers_rate: u32,
        value_bytes_max: usize,
        frame_bytes_max: usize,
        registers_max: usize,
        scopes_max: usize,
        handshake_max: u32,
        lease: u32,
        collect: u32,
        grace: u32,
        disk_free_min: u64,
        announce: u32,
        drain: u32,
        log_json: bool,
    }
    paths { tls_cert, tls_key, jwt_keys }
}

fn fill<T>(given: &mut Option<T>, from_file: Option<T>) {
    if given.is_none() {
        *given = from_file;
    }
}

impl Serve {
    /// Fills what was not given from the file, if one is named.
    pub(crate) fn read_file(&mut self, global: &mut Global) -> Result<()> {
        let Some(path) = &self.config.clone() else { return Ok(()) };
        let name = path.display();
        let text =
            fs::read_to_string(path).with_context(|| format!("configuration {name} cannot be read"))?;
        let file: File = toml::from_str(&text).map_err(|error| {
            // What the parser shows of the file may be a token.
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            let grant = at_line(&text, line).map(|number| format!(", grant {number}")).unwrap_or_default();
            anyhow::anyhow!("configuration {name}, line {line}{grant}: {}", error.message())
        })?;
        file.fill(path.parent().unwrap_or(Path::new("")), self, global);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::CommandFactory;

    use super::*;
    use crate::args::Arguments;

    fn filled(text: &str) -> Result<(Serve, Global)> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hub.toml");
        fs::write(&path, text).unwrap();
        let mut serve = Serve { config: Some(path), listen: Some("given:1".to_owned()), ..Serve::default() };
        let mut global = Global { db: "rivus.db".into(), ..Global::default() };
        serve.read_file(&mut global).map(|()| (serve, global))
    }

    #[test]
    fn every_option_of_serve_has_a_variable_and_a_key_of_its_name() {
        let command = Arguments::command();
        let serve = command.find_subcommand("serve").unwrap();
        let mut keys: BTreeSet<String> = BTreeSet::new();
        for argument in serve.get_arguments().filter(|argument| !argument.is_global_set()) {
            let Some(long) = argument.get_long().filter(|long| !["help", "check-config"].contains(long))
            else {
                continue;
            };
            let variable = format!("RIVUS_{}", long.to_uppercase().replace('-', "_"));
            let env = argument.get_env().map(|name| name.to_str().unwrap());
            assert_eq!(env, Some(variable.as_str()), "--{long}");
            keys.insert(long.replace('-', "_"));
        }
        let error = format!("{:#}", filled("nonsense = 1").unwrap_err());
        let known: BTreeSet<String> = error.split('`').skip(3).step_by(2).map(str::to_owned).collect();
        keys.remove("config");
        keys.remove("grant");
        keys.extend(["db", "schema", "grants"].map(str::to_owned));
        assert_eq!(known, keys);
    }

    #[test]
    fn what_is_wrong_in_the_file_is_told_with_its_line_and_without_a_token() {
        let why = |text| format!("{:#}", filled(text).unwrap_err());
        let error = why("drain = 5\n\nlisten_at = \"x\"\n");
        assert!(error.contains("hub.toml, line 3: unknown field `listen_at`"), "{error}");
        let error = why("drain = \"x\"");
        assert!(error.contains("line 1: invalid type"), "{error}");
        let error =
            why("[[grants]]\ntoken = \"secret\"\nrank = 5\n[[grants]]\ntoken = \"secret2\"\nrank = 256\n");
        assert!(error.contains("line 6, grant 2: ") && !error.contains("secret"), "{error}");
        let error = why("[[grants]]\ntoken = \"secret\"\nrank = 5\nreads = [\"home\"]\n");
        assert!(
            error.contains("line 4, grant 1: unknown field `reads`") && !error.contains("secret"),
            "{error}"
        );
        let error = why("[[grants]]\ntoken = \"secret\"\nrank = 5\nread = 7\n");
        assert!(error.contains("line 4, grant 1: expected a list of scopes"), "{error}");
        let error = why("a = [\n");
        assert!(error.contains("line"), "{error}");
    }

    #[test]
    fn the_file_fills_what_was_not_given_and_its_paths_begin_at_its_folder() {
        let text = "db = \"hub.db\"\nlisten = \"file:1\"\ntls_cert = \"c.pem\"\ntls_key = \"/k.pem\"\nopen = false\n\
                    [[grants]]\ntoken = \"t\"\nrank = 1\nsubject = \"ann\"\n";
        let (serve, global) = filled(text).unwrap();
        let folder = serve.config.as_ref().unwrap().parent().unwrap().to_owned();
        assert_eq!((serve.listen.as_deref(), serve.open), (Some("given:1"), Some(false)));
        assert_eq!(global.db, folder.join("hub.db"));
        assert_eq!(serve.tls_cert, Some(folder.join("c.pem")));
        assert_eq!(serve.tls_key, Some("/k.pem".into()));
        assert_eq!(serve.grants.len(), 1);
    }

    #[test]
    fn who_may_restore_is_a_word_or_a_list() {
        let who = |text: &str| filled(text).unwrap().0.restore.unwrap().0;
        assert_eq!(who("restore = \"nobody\""), Restore::Nobody);
        assert_eq!(who("restore = \"everybody\""), Restore::Everybody);
        assert_eq!(who("restore = \"ann, bob\""), Restore::subjects(["ann", "bob"]));
        assert_eq!(who("restore = [\"nobody\"]"), Restore::subjects(["nobody"]));
        assert_eq!(who("restore = []"), Restore::subjects::<&str>([]));
    }
}
