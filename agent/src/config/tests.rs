//! Tests of the configuration file: what is refused, with which words, and that all views of the keys agree.

use std::net::IpAddr;
use std::time::Duration;

use distwatch_engine::detect::RuleOption;
use distwatch_engine::model::Severity;
use distwatch_engine::policy::Arguments;
use proptest::prelude::*;

use super::*;

static HIDDEN_NODE: Rule = Rule {
    id: "hidden-node",
    severity: Severity::Medium,
    off_by_default: false,
    group: "Membership",
    raised_when: "a hidden node connects",
    rationale: "It is not listed by nodes().",
    evidence: "The flags.",
    remediation: "List it.",
    references: &["G5"],
    options: &[],
};

static COOKIE_GUESSING: Rule = Rule {
    id: "cookie-guessing",
    severity: Severity::Critical,
    off_by_default: false,
    group: "Authentication",
    raised_when: "failures pass a threshold",
    rationale: "Somebody tries cookies.",
    evidence: "The attempts.",
    remediation: "Keep the address out.",
    references: &["G3"],
    options: &[
        RuleOption { name: "attempts", default: 5, help: "How many failures." },
        RuleOption { name: "window_seconds", default: 60, help: "Within how many seconds." },
    ],
};

fn rules() -> [&'static Rule; 2] {
    [&HIDDEN_NODE, &COOKIE_GUESSING]
}

/// Stands in for the files of a host: one list of words, nothing else.
fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    match path.to_str() {
        Some("/etc/distwatch/cookies.txt") => Ok(b"monster\r\n\nsecret cookie\n".to_vec()),
        Some("dir/huge.txt") => Ok(vec![b'\n'; 5 << 20]),
        Some("dir/long.txt") => Ok(vec![b'x'; 2000]),
        _ => Err(io::ErrorKind::NotFound.into()),
    }
}

fn checked(text: &str) -> Result<Config, ConfigErrors> {
    check(text, Path::new("dir/p.toml"), &rules(), &read_file)
}

fn right(text: &str) -> Config {
    checked(text).unwrap_or_else(|errors| panic!("{errors}\n\n{text}"))
}

/// All mistakes as lines of `line:column: what | advice`.
fn wrong(text: &str) -> Vec<String> {
    let errors = checked(text).expect_err(text);
    let line = |mistake: &Mistake| {
        let (line, column) = mistake.position.expect("it has a place");
        format!("{line}:{column}: {} | {}", mistake.what, mistake.advice.as_deref().unwrap_or("-"))
    };
    errors.mistakes.iter().map(line).collect()
}

fn shown(config: Config) -> String {
    show(&Loaded { file: None, config })
}

/// The file of the contract, in full.
const CONTRACT: &str = r#"
[network]
isolated = ["lo", "cluster0", "10.77.0.0/24"]   # where distribution and EPMD may be
tunnels  = ["wg0", "tailscale*"]                # where a remote shell may come from

[epmd]
ports = [4369]

[distribution]
ports = ["9100-9155", 25672]     # in addition to what is learned from EPMD, sockets and the traffic

[tls]
required = true
minimum_version = "1.2"
client_certificate = "required"  # or "optional"
expiry_days = 30

[[cluster]]
name = "shop"
tier = "web"                     # links between clusters or tiers are `cross-tier` unless `links_to` names them
nodes = ["web@*.shop.internal", "worker-*@10.77.0.*"]
addresses = ["10.77.0.0/24"]
links_to = []

[standalone]
nodes = ["cron@*"]

[cookies]
words_file = "/etc/distwatch/cookies.txt"   # one a line, compared with the digests; never printed

[activity]
arguments = "none"
watch = ["ets:*", "mnesia:*"]

[rules.hidden-node]
severity = "low"                 # or enabled = false
allow = [{ nodes = ["rabbitmqcli-*"], from = ["10.77.0.0/24"] }]
"#;

#[test]
fn the_file_of_the_contract_means_what_it_says() {
    let Config { policy, words_file, .. } = right(CONTRACT);
    let isolated = policy.isolated.as_ref().expect("it is declared");
    assert!(isolated.contains_interface("cluster0") && !isolated.contains_interface("eth0"));
    assert!(isolated.contains_address(IpAddr::from([10, 77, 0, 9])));
    assert!(policy.tunnels.contains_interface("tailscale0"));
    assert!(policy.distribution_ports.contains(9100) && policy.distribution_ports.contains(9155));
    assert!(policy.distribution_ports.contains(25672) && !policy.distribution_ports.contains(9156));
    assert_eq!(policy.tls.minimum_version, 0x0303);
    let [shop] = policy.clusters.as_slice() else { panic!("{:?}", policy.clusters) };
    assert_eq!((shop.name.as_str(), shop.tier.as_deref()), ("shop", Some("web")));
    assert!(shop.nodes.matches("web@a.shop.internal") && !shop.nodes.matches("web@a.other.internal"));
    assert!(policy.standalone.matches("cron@anywhere"));
    assert_eq!(policy.arguments, Arguments::None);
    assert!(policy.watch.matches("mnesia:dirty_read"));
    let hidden = &policy.rules["hidden-node"];
    assert_eq!((hidden.enabled, hidden.severity), (None, Some(Severity::Low)));
    assert!(hidden.allow[0].nodes.matches("rabbitmqcli-7@host"));
    let words: Vec<_> = policy.cookie_words.iter().map(|word| (word.entry.as_str(), word.word.as_slice())).collect();
    assert_eq!(words, [("cookies.txt line 1", &b"monster"[..]), ("cookies.txt line 3", &b"secret cookie"[..])]);
    assert_eq!(words_file.as_deref(), Some(Path::new("/etc/distwatch/cookies.txt")));
}

#[test]
fn the_policy_of_the_captures_is_right() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/captures/policy.toml");
    let policy = load(Some(&path)).unwrap_or_else(|errors| panic!("{errors}")).config.policy;
    assert!(policy.isolated.is_some_and(|places| places.contains_address(IpAddr::from([10, 77, 0, 1]))));
}

#[test]
fn an_empty_file_means_the_defaults() {
    assert_eq!(shown(right("")), shown(Config::default()));
    assert_eq!(shown(right("[network]\n[tls]\n[limits]\n")), shown(Config::default()));
    assert!(right("").policy.epmd_ports.contains(4369));
}

#[test]
fn limits_take_memory_and_time_with_their_units() {
    let limits =
        right("[limits]\nflow_memory = \"128 MiB\"\nreorder_bytes = 1048576\nidle_link = \"2m\"\nterm_depth = 64")
            .policy
            .limits;
    assert_eq!((limits.flow_memory, limits.reorder_bytes), (128 << 20, 1 << 20));
    assert_eq!((limits.idle_link, limits.term_depth), (Duration::from_secs(120), 64));
    assert_eq!(limits.handshake, distwatch_engine::limits::Limits::default().handshake);
}

#[test]
fn every_kind_of_mistake_is_named_with_its_place_and_what_to_do() {
    let cases: &[(&str, &[&str])] = &[
        ("[netwrok]\n", &["1:2: `netwrok` is not a key of the file | did you mean `network`?"]),
        ("[network]\nisolatd = []\n", &["2:1: `isolatd` is not a key of [network] | did you mean `isolated`?"]),
        ("[tls]\nwords_file = \"x\"\n", &["2:1: `words_file` is not a key of [tls] | it belongs in [cookies]"]),
        ("links_to = []\n", &["1:1: `links_to` is not a key of the file | it belongs in [[cluster]]"]),
        ("[epmd]\ncolour = 1\n", &["2:1: `colour` is not a key of [epmd] | [epmd] may have: ports"]),
        ("tls = true\n", &["1:7: tls: expected a table, found true or false | begin it with [tls]"]),
        (
            "[cluster]\nname = \"x\"\n",
            &["1:1: cluster: expected a list, found a table | begin each cluster with [[cluster]], in double brackets"],
        ),
        (
            "[tls]\nrequired = \"yes\"\n",
            &["2:12: tls.required: expected true or false, found a string | write true or false, without quotes"],
        ),
        (
            "[tls]\nminimum_version = \"1.4\"\n",
            &["2:19: tls.minimum_version: `1.4` is not a value of it | write one of \"1.0\", \
               \"1.1\", \"1.2\", \"1.3\""],
        ),
        (
            "[tls]\nminimum_version = 1.2\n",
            &[
                "2:19: tls.minimum_version: expected a string, found a fraction | write one of \"1.0\", \"1.1\", \"1.2\", \
               \"1.3\"",
            ],
        ),
        (
            "[tls]\nexpiry_days = -1\n",
            &["2:15: tls.expiry_days: `-1` is out of range | write a whole number from 0 to 3650"],
        ),
        (
            "[network]\nisolated = \"lo\"\n",
            &[
                "2:12: network.isolated: expected a list, found a string | put it into brackets: [\"lo\", \"10.77.0.0/24\"]",
            ],
        ),
        (
            "[network]\nisolated = [\"lo\", \"10.77.0.0/33\"]\n",
            &[
                "2:19: network.isolated: `10.77.0.0/33` is neither an address nor a network | write one as \"10.77.0.0/24\" \
               or \"fd00::/8\", or an interface",
            ],
        ),
        (
            "[network]\ntunnels = [\"wg[0\"]\n",
            &[
                "2:12: network.tunnels: `wg[0` is no pattern: unclosed character class; missing ']' | `*` stands for any \
               characters, `?` for one, `[ab]` and `{one,two}` for a choice; a backslash takes the meaning away",
            ],
        ),
        (
            "[epmd]\nports = [0, 65536, \"4369-\", \"9-1\", true]\n",
            &[
                "2:10: epmd.ports: `0` is neither a port nor a range of ports | write a port (1 to 65535) or a range in \
                 quotes, as \"9100-9155\"",
                "2:13: epmd.ports: `65536` is neither a port nor a range of ports | write a port (1 to 65535) or a range \
                 in quotes, as \"9100-9155\"",
                "2:20: epmd.ports: `4369-` is neither a port nor a range of ports | write a port (1 to 65535) or a range \
                 in quotes, as \"9100-9155\"",
                "2:29: epmd.ports: the range `9-1` ends before it begins | write \"1-9\"",
                "2:36: epmd.ports: expected a port or a range of ports, found true or false | write a port (1 to 65535) or \
                 a range in quotes, as \"9100-9155\"",
            ],
        ),
        (
            "[[cluster]]\nname = \"a\"\nnodes = [\"a@*\"]\nlinks_to = [\"bb\"]\n[[cluster]]\nname = \"a\"\ntier = \"b\"\nnodes = []\n",
            &[
                "4:13: cluster.links_to: `bb` is neither a cluster nor a tier | name a cluster or a tier of this file",
                "6:8: cluster.name: there is a cluster of the name `a` already | give each cluster its own name, or put the \
                 nodes of both into one",
            ],
        ),
        (
            "[[cluster]]\ntier = \"web\"\n",
            &[
                "1:1: cluster: a cluster has no name | give it one: name = \"shop\"",
                "1:1: cluster: a cluster has neither nodes nor addresses | say which nodes belong to it: nodes = [\"web@*\"]",
            ],
        ),
        (
            "[cookies]\nwords_file = \"none.txt\"\n",
            &[
                "2:14: cookies.words_file: `dir/none.txt` cannot be read: entity not found | name a file that exists and that \
               this user may read",
            ],
        ),
        (
            "[cookies]\nwords_file = \"huge.txt\"\n",
            &[
                "2:14: cookies.words_file: `dir/huge.txt` has more than 4 MiB | keep to the words that are worth trying on \
               every handshake",
            ],
        ),
        (
            "[cookies]\nwords_file = \"long.txt\"\n",
            &["2:14: cookies.words_file: line 1 of `dir/long.txt` is longer than any cookie | write one word a line"],
        ),
        (
            "[activity]\narguments = \"ful\"\nwatch = [\"\"]\n",
            &[
                "2:13: activity.arguments: `ful` is not a value of it | did you mean \"full\"? write one of \"none\", \
                 \"types\", \"full\"",
                "3:10: activity.watch: the string is empty | write a name in quotes; `*` stands for any characters",
            ],
        ),
        ("[rules.hiden-node]\n", &["1:8: rules: there is no rule `hiden-node` | did you mean `hidden-node`?"]),
        ("[rules.nothing]\n", &["1:8: rules: there is no rule `nothing` | `distwatch rules` lists all of them"]),
        (
            "[rules]\nhidden-node = \"off\"\n",
            &[
                "2:15: rules.hidden-node: expected a table, found a string | begin the settings of each rule with [rules.<id>]",
            ],
        ),
        (
            "[rules.hidden-node]\nseverity = \"hihg\"\nattempts = 3\n",
            &[
                "2:12: rules.hidden-node.severity: `hihg` is not a value of it | did you mean \"high\"? write one of \"info\", \
                 \"low\", \"medium\", \"high\", \"critical\"",
                "3:1: `attempts` is not a key of [rules.hidden-node] | [rules.hidden-node] may have: enabled, severity, allow",
            ],
        ),
        (
            "[rules.cookie-guessing]\natempts = 3\nwindow_seconds = \"1m\"\n",
            &[
                "2:1: `atempts` is not a key of [rules.cookie-guessing] | did you mean `attempts`?",
                "3:18: rules.cookie-guessing.window_seconds: expected a whole number, found a string | write a whole number, 0 \
                 or more",
            ],
        ),
        (
            "[rules.hidden-node]\nallow = [{}, { node = [\"a\"] }, { from = [\"here\"], nodes = [] }]\n",
            &[
                "2:10: rules.hidden-node.allow: the exception is empty, so it would allow everything | say which nodes, from or \
                 interfaces it is for; `enabled = false` silences the whole rule",
                "2:16: `node` is not a key of [rules.hidden-node.allow] | did you mean `nodes`?",
                "2:42: rules.hidden-node.allow.from: `here` is neither an address nor a network | write an address or a \
                 network, as \"10.77.0.0/24\" or \"fd00::/8\"",
                "2:59: rules.hidden-node.allow: `nodes` is empty, so it would allow everything | name something, or leave the \
                 part out",
            ],
        ),
        (
            "[limits]\nflow_memory = \"64 MX\"\nreorder_wait = 3\nidle_flow = \"120\"\nterm_depth = 1000000\n",
            &[
                "2:15: limits.flow_memory: not an amount of memory that can be set here | write an amount of memory from \"1 \
                 MiB\" to \"1024 GiB\"",
                "3:16: limits.reorder_wait: expected a time as a string, found a whole number | write a time with its unit, \
                 from \"10ms\" to \"1h\"",
                "4:13: limits.idle_flow: `120` is no time that can be set here | write a time with its unit, from \"1s\" to \
                 \"30d\"",
                "5:14: limits.term_depth: `1000000` is out of range | write a whole number from 16 to 10000",
            ],
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(&wrong(text), expected, "{text}");
    }
}

#[test]
fn all_mistakes_of_a_file_are_told_at_once_in_its_order() {
    let errors = checked(
        "[network]\nisolatd = [\"lo\"]\n\n[tls]\nminimum_version = \"1.5\"\n\n[rules.hiden-node]\nenabled = false\n\n\
         [epmd]\nports = [\"x\"]\n",
    )
    .expect_err("it is wrong");
    assert_eq!(
        errors.to_string(),
        "dir/p.toml has 4 mistakes

dir/p.toml:2:1: `isolatd` is not a key of [network]
    did you mean `isolated`?

dir/p.toml:5:19: tls.minimum_version: `1.5` is not a value of it
    write one of \"1.0\", \"1.1\", \"1.2\", \"1.3\"

dir/p.toml:7:8: rules: there is no rule `hiden-node`
    did you mean `hidden-node`?

dir/p.toml:11:10: epmd.ports: `x` is neither a port nor a range of ports
    write a port (1 to 65535) or a range in quotes, as \"9100-9155\""
    );
}

#[test]
fn what_is_not_toml_is_told_at_its_place() {
    let mistakes = wrong("[tls]\nrequired = \n\n[epmd\nports = [4369]\n");
    assert!(mistakes[0].starts_with("2:12: "), "{mistakes:?}");
    assert!(mistakes.iter().any(|mistake| mistake.starts_with("4:")), "{mistakes:?}");
    let mistakes = wrong("[tls]\nrequired = true\nrequired = false\n");
    assert!(mistakes[0].starts_with("3:1: duplicate key"), "{mistakes:?}");
}

#[test]
fn a_file_that_cannot_be_read_says_so() {
    let directory = tempfile::tempdir().expect("a directory can be made");
    let missing = load(Some(&directory.path().join("none.toml"))).expect_err("there is none");
    assert!(missing.to_string().contains("it cannot be read: No such file"), "{missing}");
    let latin1 = directory.path().join("latin1.toml");
    std::fs::write(&latin1, b"# a\n# caf\xe9\n").expect("it can be written");
    let error = load(Some(&latin1)).expect_err("it is not UTF-8");
    assert_eq!(error.mistakes[0].position, Some((2, 6)));
    let huge = directory.path().join("huge.toml");
    std::fs::write(&huge, vec![b'\n'; 2 << 20]).expect("it can be written");
    assert!(load(Some(&huge)).expect_err("it is huge").to_string().contains("more than 1 MiB"));
}

/// The example with the `#` removed from all that is not prose.
fn uncommented(example: &str) -> String {
    let line = |line: &str| match line.strip_prefix('#') {
        Some(setting) if !setting.starts_with(' ') => format!("{setting}\n"),
        _ => format!("{line}\n"),
    };
    example.lines().map(line).collect()
}

#[test]
fn the_example_as_printed_is_the_default() {
    assert_eq!(shown(right(&example_for(&rules()))), shown(Config::default()));
}

#[test]
fn the_example_with_every_key_set_is_right() {
    let text = uncommented(&example_for(&rules()));
    let Config { policy, .. } = right(&text);
    assert_eq!(policy.clusters.len(), 1);
    assert_eq!(policy.rules["cookie-guessing"].options["attempts"], 5);
    for section in SECTIONS {
        for key in section.key_names() {
            assert!(text.contains(&format!("\n{key} = ")), "{key}");
        }
    }
}

#[test]
fn what_the_example_shows_as_a_default_is_the_default() {
    // What stands below the words `Default:` is an example; the rest is what holds anyway.
    let example = example_for(&[]);
    let lines: Vec<&str> = example.lines().collect();
    let mut text = String::new();
    for (number, line) in lines.iter().enumerate() {
        let is_example = number > 0 && lines[number - 1].starts_with("# Default: ");
        if !is_example && !line.starts_with("#[[") && !line.starts_with("#links_to") {
            text += &uncommented(line);
        }
    }
    assert!(text.contains("\nexpiry_days = 30\n"), "{text}");
    assert_eq!(shown(right(&text)), shown(Config::default()));
}

#[test]
fn what_is_shown_says_the_same_when_it_is_read() {
    let full = CONTRACT.to_owned()
        + "\n[rules.cookie-guessing]\nenabled = true\nattempts = 9\nallow = [{ interfaces = [\"lo\"] }]\n[limits]\nreorder_wait = \"1500ms\"\nflow_memory = 70000000\n";
    for text in ["", CONTRACT, full.as_str()] {
        let once = shown(right(text));
        assert_eq!(shown(right(&once)), once);
    }
    assert!(shown(right(&full)).contains("attempts = 9"));
}

#[test]
fn values_of_headers_are_not_shown_and_secret_ones_are_files_and_variables() {
    let config = right(
        "[[sink]]\ntype = \"otlp\"\nurl = \"http://x\"\nheaders = { X-Scope = \"hunter2\" }\n\
         header_files = { Authorization = \"/etc/secret\" }\nheader_env = { X-Key = \"DW_KEY\" }\n",
    );
    let sink = &config.sinks[0];
    assert_eq!(sink.headers["X-Scope"], "hunter2");
    assert_eq!(sink.header_files["Authorization"].file.as_deref(), Some(Path::new("/etc/secret")));
    assert_eq!(sink.header_env["X-Key"].env.as_deref(), Some("DW_KEY"));
    assert_eq!(sink.secrets().into_iter().filter(|secret| !secret.is_unset()).count(), 2);
    // What decides whether a sink has changed has the value.
    assert!(super::sink_text(sink).contains("hunter2"));
    let text = shown(config);
    assert!(!text.contains("hunter2") && text.contains("X-Scope"), "{text}");
    assert_eq!(shown(right(&text)), text);
}

#[test]
fn words_that_a_cookie_must_not_be_are_counted_and_not_shown() {
    let text = shown(right(CONTRACT));
    assert!(text.contains("# 2 words of the operator's own"), "{text}");
    assert!(!text.contains("monster"), "{text}");
}

#[test]
fn the_schema_takes_the_right_files_and_refuses_the_wrong_ones() {
    let schema = jsonschema::validator_for(&schema_for(&rules())).expect("it is a schema");
    let as_json = |text: &str| serde_json::to_value(text.parse::<toml::Table>().expect("it is TOML")).expect("it fits");
    for text in [CONTRACT, &uncommented(&example_for(&rules())), &shown(Config::default())] {
        let errors: Vec<String> = schema.iter_errors(&as_json(text)).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{errors:?}");
    }
    for text in [
        "[netwrok]",
        "[tls]\nminimum_version = \"1.4\"",
        "[epmd]\nports = [0]",
        "[[cluster]]\ntier = \"x\"",
        "[rules.hidden-node]\nallow = [{}]",
        "[rules.hidden-node]\nattempts = 1",
        "[limits]\nreorder_wait = 3",
    ] {
        assert!(!schema.is_valid(&as_json(text)), "{text}");
    }
}

#[test]
fn sinks_are_read_with_their_defaults_and_the_mistakes_in_them_are_told() {
    let Config { sinks, .. } = right(
        "[[sink]]\ntype = \"loki\"\nurl = \"http://127.0.0.1:3100\"\n\
         [[sink]]\ntype = \"loki\"\nname = \"second\"\nurl = \"https://loki.example\"\nuser = \"u\"\n\
         password_file = \"secret\"\nseverity = \"high\"\nrules = [\"*-node\"]\nlabels = { env = \"test\" }\n",
    );
    assert_eq!(sinks.iter().map(|sink| sink.name.as_str()).collect::<Vec<_>>(), ["loki", "second"]);
    assert_eq!(sinks[0].spool_limit, 256 << 20);
    assert_eq!(sinks[1].severity, Severity::High);
    assert_eq!(sinks[1].auth.password.file.as_deref(), Some(Path::new("dir/secret")));
    for (text, expected) in [
        ("[sink]\ntype = \"file\"", "1:1: sink: expected a list, found a table"),
        ("[[sink]]\npath = \"x\"", "1:1: sink: a sink has no type"),
        ("[[sink]]\ntype = \"lokki\"", "2:8: sink.type: there is no sink of the type `lokki` | did you mean `loki`?"),
        ("[[sink]]\ntype = \"file\"", "1:1: sink: a sink of the type file needs `path`"),
        ("[[sink]]\ntype = \"stdout\"\npath = \"x\"", "3:1: `path` is not a key of [sink]"),
        ("[[sink]]\ntype = \"stdout\"\n[[sink]]\ntype = \"stdout\"", "3:1: sink: there is a sink of the name `stdout`"),
        ("[[sink]]\ntype = \"stdout\"\nname = \"../up\"", "3:8: sink.name: `../up` is no name for a sink"),
        ("[[sink]]\ntype = \"stdout\"\nevents = [\"alerts\"]", "3:10: sink.events: `alerts` matches no kind of record"),
        ("[[sink]]\ntype = \"stdout\"\nrules = [\"hiden-*\"]", "3:9: sink.rules: `hiden-*` matches no rule"),
        (
            "[[sink]]\ntype = \"stdout\"\nformat = \"ocsf\"\nevents = [\"*\"]",
            "4:10: sink.events: records of the kind link cannot be told here",
        ),
        ("[[sink]]\ntype = \"loki\"\nurl = \"http://me:hunter2@x\"", "3:7: sink.url: it holds a user or a password"),
        ("[[sink]]\ntype = \"loki\"\nurl = \"x:1\"", "3:7: sink.url: it does not begin with http://"),
        (
            "[[sink]]\ntype = \"loki\"\nurl = \"http://x\"\nlabels = { \"a.b\" = \"c\" }",
            "4:12: sink.labels: `a.b` is no name of a label",
        ),
        (
            "[[sink]]\ntype = \"webhook\"\nurl = \"http://x\"\nheaders = { Authorization = \"hunter2\" }",
            "4:13: sink.headers: `Authorization` holds a secret",
        ),
        (
            "[[sink]]\ntype = \"webhook\"\nurl = \"http://x\"\nheaders = { Webhook-Id = \"1\" }",
            "4:13: sink.headers: `Webhook-Id` is set by the sink",
        ),
        (
            "[[sink]]\ntype = \"webhook\"\nurl = \"http://x\"\nheader_files = { \"a b\" = \"hunter2\" }",
            "4:18: sink.header_files: `a b` is no name of a header",
        ),
        (
            "[[sink]]\ntype = \"otlp\"\nurl = \"http://x/v1/logs\"\nprotocol = \"grpc\"",
            "3:7: sink.url: an address of gRPC has no path",
        ),
        (
            "[[sink]]\ntype = \"otlp\"\nurl = \"http://x\"\nheader_env = { X-Key = \"hunter 2\" }",
            "4:24: sink.header_env: it is no name of a variable",
        ),
        (
            "[[sink]]\ntype = \"otlp\"\nurl = \"http://x\"\ntoken_env = \"A\"\nheader_files = { Authorization = \"hunter2\" }",
            "5:18: sink.header_files: `Authorization` is given by `token_file` already",
        ),
        (
            "[[sink]]\ntype = \"otlp\"\nurl = \"http://x\"\nheaders = { X-Key = \"hunter2\" }\nheader_files = { x-key = \"f\" }",
            "5:18: sink.header_files: `x-key` is given by `headers` already",
        ),
        (
            "[[sink]]\ntype = \"file\"\npath = \"/records\"",
            "3:8: sink.path: the file is in the root of the file system",
        ),
        (
            "[[sink]]\ntype = \"webhook\"\nurl = \"http://x\"\nbody = \"a: {{alert.reason}}\"",
            "4:8: sink.body: it is no JSON",
        ),
        ("[[sink]]\ntype = \"webhook\"\nurl = \"http://x\"\nbody = \"{{\"", "4:8: sink.body: a `{{` has no `}}`"),
        (
            "[[sink]]\ntype = \"webhook\"",
            "1:1: sink: a sink of the type webhook needs `url` or `url_file` or `url_env`",
        ),
        (
            "[[sink]]\ntype = \"otlp\"\nurl = \"http://x\"\ntoken_env = \"hunter 2\"",
            "4:13: sink.token_env: it is no name of a variable",
        ),
        (
            "[[sink]]\ntype = \"otlp\"\nurl = \"http://x\"\ntoken_env = \"A\"\ntoken_file = \"b\"",
            "4:1: sink: `token_file` and `token_env` contradict each other",
        ),
        (
            "[[sink]]\ntype = \"otlp\"\nurl = \"http://x\"\nkey_file = \"b\"",
            "4:1: sink: `key_file` means nothing alone | give `certificate_file` too",
        ),
        ("[[sink]]\ntype = \"syslog\"\naddress = \"host\"", "3:11: sink.address: it has no port"),
        ("[[sink]]\ntype = \"nats\"\nurl = \"nats://x\"\nsubject = \"a.*\"", "4:11: sink.subject: it is no subject"),
    ] {
        let mistakes = wrong(text);
        assert_eq!(mistakes.len(), 1, "{text}: {mistakes:?}");
        assert!(mistakes[0].starts_with(expected), "{text}: {mistakes:?}");
        assert!(!mistakes[0].contains("hunter"), "{mistakes:?}");
    }
}

/// Pieces of real files, so that random text gets past the parser now and then.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => prop::sample::select(vec![
            "[network]\n", "isolated", "tunnels", "[epmd]\n", "ports", " = ", "[", "]", "{", "}", ", ", "\n", "\"",
            "[[cluster]]\n", "name", "nodes", "links_to", "[rules.hidden-node]\n", "allow", "severity", "[limits]\n",
            "[[sink]]\n", "type", "\"loki\"", "url", "\"http://x\"", "flow_memory", "\"64 MiB\"", "\"lo\"", "\"10.0.0.0/8\"", "\"9-\"", "1", "-1", "99999999999999999999", "true",
            "0x7f", "1.5", "1979-05-27", "words_file", "[cookies]\n", "idle_link", "\"2m\"", ".", "'''",
        ]).prop_map(str::to_owned),
        1 => any::<String>(),
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn no_text_makes_the_check_panic(text in pieces()) {
        if let Err(errors) = checked(&text) {
            prop_assert!(!errors.mistakes.is_empty());
            prop_assert!(!errors.to_string().is_empty());
        }
    }

    #[test]
    fn what_was_accepted_can_be_shown_and_read_again(text in pieces()) {
        if let Ok(config) = checked(&text) {
            let once = shown(config);
            prop_assert_eq!(shown(right(&once)), once);
        }
    }
}
