//! What `--help` says below the options: examples, and what is worth knowing before the first try.

pub(super) const EXAMPLES: &str = "\
Examples:
  rivus demo
  rivus put task t1 title='Write the offer' done=false
  rivus show task t1
  rivus serve
  rivus --db phone.db sync ws://127.0.0.1:7171

Exit codes: 0 done, 1 failed, 2 wrong usage. Errors go to standard error.";

pub(super) const DEMO: &str = "\
Examples:
  rivus demo
  rivus demo --dir /tmp/rivus-demo
  rivus --json demo | jq '.rows[] | {field, shown, why}'

Exit code 1 if the three do not end up showing the same.";

/// As it is typed: the parser would have the fields first.
pub(super) const PUT_USAGE: &str = "\
rivus put [OPTIONS] <KIND> <ID> [FIELD=VALUE]... [--add <FIELD=KEY>] [--remove <FIELD=KEY>]
                 [--set-key <FIELD.KEY=VALUE>] [--inc <FIELD=N>]";

pub(super) const PUT: &str = "\
Examples:
  rivus put task t1 title='Write the offer' done=false estimate=2.5
  rivus put task t1 place='{\"city\":\"Graz\"}' code='\"007\"'
  rivus --schema schema.toml put task t1 --add tags=urgent --remove tags=draft --inc views=1
  rivus --schema schema.toml put task t1 --set-key labels.color=red
  rivus put task t1 title='Write the offer' --force";

pub(super) const SHOW: &str = "\
Examples:
  rivus show task t1
  rivus --json show task t1 | jq .fields

With --json also every register: all writes still in the running, with stamps and ranks.";

pub(super) const EXPLAIN: &str = "\
Examples:
  rivus explain task t1 title
  rivus --json explain task t1 | jq '.fields[].registers[].candidates'

With --json all that decides: candidates with stamps and ranks, floors, what was seen, rules and what they hide.";

pub(super) const CONFLICTS: &str = "\
Examples:
  rivus conflicts
  rivus conflicts --dismiss 1 --restore 2
  rivus --json conflicts | jq .value

With an authority the list is exact. Without one it may name writes that were seen before they were replaced.";

pub(super) const OVERLAYS: &str = "\
Examples:
  rivus --schema schema.toml overlays
  rivus --schema schema.toml overlays entry e1
  rivus --json --schema schema.toml overlays | jq '{id, field, shown, hidden}'

The rules are those of the schema: without it there are none. `explain` tells of one entity why.";

pub(super) const REJECTED: &str = "\
Examples:
  rivus rejected
  rivus rejected --retry 12 --discard 14
  rivus --json rejected | jq .reason

A refused edit was taken back when the hub's answer came, and holds up no other. It is off the list once its fields are
written anew. `export --pending` writes all of them, and what is pending, to a file.";

pub(super) const LIST: &str = "\
Examples:
  rivus list
  rivus list task
  rivus --json list task | jq -r .id";

pub(super) const DELETE: &str = "\
Example:
  rivus delete task t1";

pub(super) const REVIVE: &str = "\
Example:
  rivus revive task t1";

pub(super) const EVICT: &str = "\
Example:
  rivus evict task t1 t2

All of them are evicted or none. Only what the hub has confirmed is, so sync first. `list` and `show` do not have
them, and edits of them are refused until they are fetched; everything else shows as before.";

pub(super) const COLLECT: &str = "\
Examples:
  rivus --db hub.db collect --dry-run
  rivus --db hub.db --schema schema.toml collect --grace 7

A hub does this by itself (`serve --collect`). Give the schema that the hub has: what its rules need of the deleted stays.";

pub(super) const LEASES: &str = "\
Examples:
  rivus --db hub.db leases
  rivus --db hub.db leases --end 3f2a61c09d5e7b84
  rivus --json --db hub.db leases | jq 'select(.running) | .behind'

A database whose lease has ended reads everything again if it comes back after something was forgotten; no edit of it is
lost.";

pub(super) const ACCOUNTS: &str = "\
A database belongs to the account whose token it first connected with, and is refused with another's (OWNER). A token
that was granted without a subject is an account of its own: after it is replaced, disown that. A hub may run meanwhile;
take the former token out of its configuration before, or its bearer has the databases again.

Examples:
  rivus --db hub.db accounts
  rivus --db hub.db disown ann
  rivus --json --db hub.db accounts | jq '{subject, stores}'";

pub(super) const FETCH: &str = "\
Example:
  rivus fetch ws://127.0.0.1:7171 task t1 t2

It syncs first.";

pub(super) const STATUS: &str = "\
Examples:
  rivus status
  rivus --json status | jq -r .digest

Two databases that show the same have the same digest.";

pub(super) const VERIFY: &str = "\
Examples:
  rivus verify || rivus repair
  rivus --json verify | jq -e .sound

What is kept beside the rows is the digest, which is compared with other databases, that of each scope, and the index of
the rules. The exit code is 1 if one of them is wrong. A row that cannot be read is beyond repair: `verify` names the
first 1,000 of them. Restore a backup, or name a new file and sync, or import there what `export --skip-damaged` writes.";

pub(super) const BACKUP: &str = "\
Examples:
  rivus --db hub.db backup hub-monday.db
  rivus --db hub.db restore hub-monday.db

Neither writes over a file that is there. A restored hub gets from its devices what they have had confirmed since the
backup, when they connect; a restored device goes on under a new id.";

pub(super) const IMPORT: &str = "\
JSON:       objects by kind and id, as `export` writes them, or an array of flat objects (needs --kind)
JSON Lines: {\"kind\":…,\"id\":…,\"fields\":{…}}, as `export` writes them, or flat objects (needs --kind)
CSV:        a header, then a row for each entity (needs --kind). Cells are text; with --infer they are JSON
            if they read as JSON. An empty cell leaves its field as it is.

Fields that are not in the file stay as they are. A list for a set adds its keys, an object for a map sets
its keys, a number for a counter brings the counter there; what is so already is not written again. Entities
go in by transactions of up to 1,000; if one fails, none of that transaction is there.

Examples:
  rivus import tasks.jsonl
  rivus import people.csv --kind person --id email --infer
  curl https://example.org/tasks.json | rivus import - --format json --kind task";

pub(super) const EXPORT: &str = "\
JSON is an object by kind, id and field; JSON Lines an object for each entity; CSV a row for each entity of
one kind. A CSV cell is empty where the field is absent; text stands as it is, unless it could be read as
JSON: then it stands in JSON quotes. So `import --infer` reads back exactly what was exported.
Deleted entities are left out. Kinds that the schema does not declare are written as they show without it.

Examples:
  rivus export -o backup.json
  rivus export --skip-damaged -o rescued.json
  rivus export task --format jsonl | gzip > tasks.jsonl.gz
  rivus export task -o tasks.csv
  rivus export --pending -o unsent.json";

pub(super) const SERVE: &str = "\
The database becomes the authority of all that sync with it, for good, unless --peer says otherwise.
Beyond loopback give it a certificate, or listen behind a proxy that has TLS. SIGTERM and ctrl-c end it in order, the
second one at once; SIGHUP has it read certificates and keys again that changed.

In the file of --config the keys are the options with _ for -, and db and schema; tokens are tables:
  listen = \"0.0.0.0:7171\"
  tls_cert = \"hub.pem\"
  tls_key = \"hub-key.pem\"
  [[grants]]
  token = \"phone-secret\"
  rank = 5
  subject = \"ann\"
  read = [\"home\", \"work/*\"]
  write = [\"home\"]

Examples:
  rivus serve
  rivus --db hub.db serve --listen 0.0.0.0:7171 --grant phone-secret=5:ann --grant desk-secret=0:ann
  rivus --db hub.db serve --listen 192.168.1.5:7171 --open
  rivus serve --config hub.toml --check-config && rivus serve --config hub.toml";

pub(super) const HEALTH: &str = "\
Example:
  rivus serve --admin 127.0.0.1:9191 & sleep 1; rivus health";

pub(super) const SYNC: &str = "\
Examples:
  rivus sync ws://127.0.0.1:7171
  RIVUS_TOKEN=phone-secret rivus --db phone.db sync wss://hub.example.org:7171
  rivus sync wss://hub.internal:7171 --ca ca.pem
  rivus --json sync ws://127.0.0.1:7171 --limit 1000 | jq .pulled.more

The report says what became of every edit that was offered, also where the sync broke off; the exit code is 1 then.";

pub(super) const LIVE: &str = "\
Examples:
  rivus live ws://127.0.0.1:7171
  rivus --json live ws://127.0.0.1:7171 --token phone-secret | jq .changed

It redials by itself. What other processes write into the same file is sent along too.";

pub(super) const REPLAY: &str = "\
Standard output gets what `show` and `converge` print and nothing else; refused edits go to standard error.

Examples:
  rivus replay history.jsonl
  rivus replay history.jsonl --store sqlite --transport websocket > shown.jsonl
  generate | rivus replay -";

pub(super) const SIMULATE: &str = "\
A run is a function of its seed: the same seed does the same. A failure is made small and told as a finding, a
token, the steps, and the nearest replay script. At the end: how often each rare situation came up.
Exit code 1 if anything failed.

Examples:
  rivus simulate --runs 10000
  rivus simulate --full --seed 77 --runs 100
  rivus simulate --rules --runs 10000
  rivus simulate --runs 1000000 --shard 0/2 --state sim-0.json
  rivus simulate --token r1-0000000000001";

pub(super) const COMPLETIONS: &str = "\
Examples:
  rivus completions bash > ~/.local/share/bash-completion/completions/rivus
  rivus completions zsh > ~/.zfunc/_rivus
  rivus completions fish > ~/.config/fish/completions/rivus.fish";
