//! Configuration files: the ones that ship, and what is said about wrong ones.

use std::{
    fs,
    path::{Path, PathBuf},
};

use proptest::prelude::*;
use tollgate::config::{Config, ConfigErrors, parse, reference};

/// Set to write what is found as what is expected.
const UPDATE: &str = "UPDATE_EXPECTED";

fn at(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn files(directory: &str, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(at(directory)).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|e| e == extension));
    files.sort();
    assert!(!files.is_empty(), "{directory}");
    files
}

fn read(text: &str, env: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    parse(text, "tollgate.toml", Path::new("/etc/tollgate"), env)
}

#[track_caller]
fn good(text: &str) -> Config {
    read(text, &[]).unwrap_or_else(|errors| panic!("{errors}"))
}

#[track_caller]
fn expect(path: &Path, found: &str) {
    if std::env::var_os(UPDATE).is_some() {
        fs::write(path, found).unwrap();
    }
    let expected = fs::read_to_string(path).unwrap_or_default();
    assert!(expected == found, "{} differs ({UPDATE}=1 rewrites it); found:\n{found}", path.display());
}

/// Each `tests/config/NAME.toml` against `NAME.txt`; lines `# env: NAME=value` at its top are variables.
#[test]
fn mistakes_are_shown_as_expected() {
    for path in files("tests/config", "toml") {
        let text = fs::read_to_string(&path).unwrap();
        let env: Vec<(&str, &str)> =
            text.lines().filter_map(|line| line.strip_prefix("# env: ")?.split_once('=')).collect();
        let name = path.file_name().unwrap().to_str().unwrap();
        let env = env.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
        let found = match parse(&text, name, Path::new(""), env) {
            Ok(config) => config.warnings.unwrap_or_else(|| panic!("{name} has no mistake")).to_string(),
            Err(errors) => errors.to_string(),
        };
        expect(&path.with_extension("txt"), &format!("{found}\n"));
    }
}

#[test]
fn every_file_that_ships_loads_without_warning() {
    for path in files("config", "toml") {
        let config = tollgate::config::load(&path, std::iter::empty()).unwrap_or_else(|errors| panic!("{errors}"));
        assert!(config.warnings.is_none(), "{}: {}", path.display(), config.warnings.unwrap());
    }
}

#[test]
fn the_commented_file_is_the_reference() {
    expect(&at("config/tollgate.toml"), &reference());
}

/// Uncomments lines that start with `mark` and hold a setting or a section.
fn uncommented(text: &str, mark: &str) -> String {
    let line = |line: &str| match line.strip_prefix(mark) {
        Some(rest)
            if rest.starts_with('[') || rest.split_once(" = ").is_some_and(|(key, _)| !key.contains([' ', '='])) =>
        {
            rest.to_owned()
        }
        _ => line.to_owned(),
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn what_the_commented_file_calls_a_default_is_the_default() {
    let full = reference();
    let defaults = uncommented(&full, "# ");
    assert!(defaults.lines().filter(|line| !line.starts_with('#')).count() > 60, "{defaults}");
    let expected = format!("{:#?}", good(&full));
    let found = format!("{:#?}", good(&defaults));
    assert_eq!(found, expected);
    // A route sells one thing: its tool stands for the others.
    let without =
        |keys: &[&str]| keys.iter().fold(defaults.clone(), |text, key| text.replace(&format!("## {key}"), "#!"));
    let one = without(&["prompt = ", "resource = ", "prepaid = ", "pass = "]);
    let (before, rules) = one.split_once("## [[routes.agents]]").unwrap();
    let one = format!("{before}{}", rules.split_once("\n\n").unwrap().1);
    let examples = good(&uncommented(&one, "## "));
    assert_eq!(examples.mcp.endpoints.len(), 1);
    assert_eq!((examples.identity.pins.len(), examples.origins.len(), examples.server.cores), (1, 2, 4));
    // Rules for agents are for pages, and each is for one kind of agents.
    let pages = without(&[
        "tool = ",
        "prompt = ",
        "resource = ",
        "user_agent = ",
        "addresses = ",
        "input_schema = ",
        "prepaid = ",
    ]);
    assert_eq!(good(&uncommented(&pages, "## ")).routes[0].agents.len(), 1);
}

#[test]
fn defaults() {
    let config = good("[origin]\nurl = \"https://Example.com\"\nca_file = \"ca.pem\"");
    assert_eq!(listens(&config), ["127.0.0.1:8402"]);
    assert_eq!((config.origins[0].host.as_str(), config.origins[0].port), ("example.com", 443));
    assert_eq!(config.origins[0].ca_file.as_deref(), Some(Path::new("/etc/tollgate/ca.pem")));
    assert_eq!(config.ledger.location.file(), Some(Path::new("/etc/tollgate/tollgate.sqlite")));
    assert!(config.table.serves("any") && !config.table.has_priced("any"));
}

#[test]
fn variables_override_the_file() {
    let file = "[origin]\nurl = \"http://a\"\n[server]\nlisten = [\"127.0.0.1:1\"]\ncors = true";
    let env = [
        ("TOLLGATE__SERVER__LISTEN", "127.0.0.1:2, [::1]:3"),
        ("TOLLGATE__SERVER__CORS", "false"),
        ("TOLLGATE__SERVER__LIMITS__CONNECTIONS", "7"),
        ("TOLLGATE__ORIGIN__URL", "http://b:9"),
        ("TOLLGATE__ORIGINS__BLOG-2__URL", "http://c"),
        ("TOLLGATE__LEDGER__URL", "sqlite:/x/y"),
        ("TOLLGATE_LOG", "not ours"),
        ("PATH", "/bin"),
    ];
    let config = read(file, &env).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(listens(&config), ["127.0.0.1:2", "[::1]:3"]);
    assert!(!config.server.cors);
    assert_eq!(config.server.limits.connections, 7);
    assert_eq!((config.origins[0].host.as_str(), config.origins[0].port), ("b", 9));
    assert_eq!((&*config.origins[1].name, config.origins[1].host.as_str()), ("blog-2", "c"));
    assert_eq!(config.ledger.location.file(), Some(Path::new("/x/y")));
    let config = read("", &[("TOLLGATE__ORIGIN__URL", "http://b")]).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(config.origins[0].host, "b");
    let config = read("[origin]\nhead_seconds = 5", &[("TOLLGATE__ORIGIN__URL", "http://b")]).unwrap();
    assert_eq!(config.origins[0].head.as_secs(), 5);
}

#[test]
fn the_digest_follows_prices_and_not_the_order_of_routes() {
    let file = |routes: &[&str]| {
        let routes: String = routes.iter().map(|r| format!("[[routes]]\n{r}\n")).collect();
        good(&format!("[origin]\nurl = \"http://a\"\n{routes}")).table_hash
    };
    let (a, b) = ("path = \"/a\"\nprice = \"0.01 USD\"", "path = \"/b\"\nprice = \"free\"");
    assert_eq!(file(&[a, b]), file(&[b, a]));
    assert_eq!(file(&[a, b]), file(&["path = \"/%61\"\nprice = \"0.010 usd\"", b]));
    assert_ne!(file(&[a, b]), file(&["path = \"/a\"\nprice = \"0.02 USD\"", b]));
    assert_ne!(file(&[a, b]), file(&[a]));
}

#[test]
fn problems_as_json_carry_place_key_and_advice() {
    let errors = read("[origin]\nurl = \"http://a\"\n[server]\n  cros = true", &[("TOLLGATE__X", "y")]).unwrap_err();
    let json = errors.to_json();
    assert_eq!(errors.len(), 2);
    assert_eq!(json[0]["file"], "tollgate.toml");
    assert_eq!((json[0]["line"].as_u64(), json[0]["column"].as_u64()), (Some(4), Some(3)));
    assert_eq!((&json[0]["key"], &json[0]["level"]), (&"server.cros".into(), &"error".into()));
    assert_eq!(json[0]["help"], "did you mean `cors`?");
    assert_eq!(json[1]["variable"], "TOLLGATE__X");
    assert!(json[1]["line"].is_null());
    assert!(errors.render(true).contains("\u{1b}["));
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("none.toml");
    let errors = tollgate::config::load(&path, std::iter::empty()).unwrap_err().to_string();
    assert!(errors.contains("none.toml") && errors.contains("cannot be read"), "{errors}");
    fs::write(&path, b"[origin]\nurl = \"\xff\"").unwrap();
    let errors = tollgate::config::load(&path, std::iter::empty()).unwrap_err().to_string();
    assert!(errors.contains("not UTF-8 text (line 2)"), "{errors}");
}

/// The full file with one line replaced, doubled or cut.
fn mutated() -> impl Strategy<Value = String> {
    let full = uncommented(&uncommented(&reference(), "# "), "## ");
    let lines: Vec<String> = full.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect();
    let values = prop::sample::select(vec![
        "1",
        "-1",
        "0.5",
        "true",
        "\"\"",
        "\"é\"",
        "\"free\"",
        "[]",
        "[1]",
        "[\"\"]",
        "{}",
        "[{}]",
        "1979-05-27",
        "\"*\"",
        "99999999999999999999",
        "\"https://*.a.b\"",
        "\"\\u0000\"",
        "\"/{a}/*\"",
        "\"\"\"\nx\"\"\"",
        "{ a = 1, a = 2 }",
    ]);
    (0..lines.len(), values, 0..5, "\\PC{0,8}").prop_map(move |(at, value, how, noise)| {
        let mut lines = lines.clone();
        let key = lines[at].split(" = ").next().unwrap_or_default().to_owned();
        match how {
            0 | 1 => lines[at] = format!("{key} = {value}"),
            2 => lines.insert(at, lines[at].clone()),
            3 => drop(lines.remove(at)),
            _ => lines[at].push_str(&noise),
        }
        lines.join("\n")
    })
}

/// Whatever comes out can be shown.
fn shows(result: Result<Config, ConfigErrors>) {
    if let Err(errors) = result {
        assert!(!errors.is_empty() && errors.fatal());
        let _ = (errors.to_string(), errors.render(true), errors.to_json());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_text_panics(text in "\\PC{0,60}|[\\[\\]{}a-z.\"'=\r\n\t#0-9é]{0,80}") {
        shows(read(&text, &[]));
    }

    #[test]
    fn no_mutation_of_the_full_file_panics(text in mutated()) {
        shows(read(&text, &[]));
    }

    #[test]
    fn no_variable_panics(name in "[A-Z_a-zé.0-9]{0,20}", value in "\\PC{0,20}") {
        let section = format!("TOLLGATE__SERVER__{name}");
        let root = format!("TOLLGATE__{name}");
        for name in [section.as_str(), root.as_str(), "TOLLGATE__SERVER__LISTEN", "TOLLGATE__SERVER__PUBLIC_URL",
            "TOLLGATE__SERVER__CORES"] {
            shows(read("[origin]\nurl = \"http://a\"", &[(name, &value)]));
        }
    }
}

fn listens(config: &Config) -> Vec<String> {
    config.server.listen.iter().map(ToString::to_string).collect()
}
