//! Turns of a conversation as one prompt, by the chat template of the checkpoint: a Jinja program in `chat_template.jinja`, or
//! in `tokenizer_config.json`, both of which `moec build` takes along. It sees what transformers would show it.
//!
//! A checkpoint without one gets [`PLAIN`], which is made for nobody, and ends where the next turn of the user would begin.

use std::{
    error::Error,
    fs,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use minijinja::{Environment, ErrorKind, Value, context};
use serde_json::Value as Json;

/// `ROLE: CONTENT` for each turn, an empty line behind it, and at the end the role of who is to speak.
const PLAIN: &str = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n\n{% endfor %}assistant:";
/// What ends an answer in that form.
const NEXT_TURN: &str = "\n\nuser:";
/// Work of a template for one prompt: beyond any that ends.
const FUEL: u64 = 5_000_000;

pub struct Chat {
    environment: Environment<'static>,
    /// `bos_token` and others, by which templates call them.
    special_tokens: Vec<(String, String)>,
    /// Texts at which an answer ends whatever the request says.
    pub stop: Vec<String>,
    /// Whether the template writes what the tokenizer would add at the beginning.
    pub writes_special_tokens: bool,
}

impl Chat {
    /// Of a build's folder.
    pub fn open(folder: &Path) -> Result<Chat, Box<dyn Error>> {
        let path = folder.join("tokenizer_config.json");
        let config: Json = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| format!("{}: {error}", path.display()))?,
            Err(_) => Json::Null,
        };
        let alone = folder.join("chat_template.jinja");
        let own = match fs::read_to_string(&alone) {
            Ok(text) => Some(text),
            Err(_) => template_in(&config["chat_template"]),
        };
        let named = |(name, value): (&String, &Json)| {
            let text = value.as_str().or_else(|| value["content"].as_str())?;
            name.ends_with("_token").then(|| (name.clone(), text.to_owned()))
        };
        let special_tokens = config.as_object().into_iter().flatten().filter_map(named).collect();
        let (stop, writes_special_tokens) = match own {
            Some(_) => (Vec::new(), true),
            None => (vec![NEXT_TURN.to_owned()], false),
        };
        let environment = environment(own.unwrap_or_else(|| PLAIN.to_owned()))
            .map_err(|error| format!("the chat template of {} is no template: {error:#}", folder.display()))?;
        Ok(Chat { environment, special_tokens, stop, writes_special_tokens })
    }

    /// The prompt that ends where the assistant is to speak; `messages` are objects with `role` and `content`.
    pub fn prompt(&self, messages: &[Json]) -> Result<String, minijinja::Error> {
        let named = self.special_tokens.iter().map(|(name, text)| (name.clone(), Value::from(text.as_str())));
        let named: Value = named.collect();
        let template = self.environment.get_template("chat")?;
        let messages = Value::from_serialize(messages);
        template.render(context! { messages, add_generation_prompt => true, tools => (), documents => (), ..named })
    }
}

/// One text, or several of which `default` is the one for conversations.
fn template_in(value: &Json) -> Option<String> {
    let named = |list: &Vec<Json>| list.iter().find(|one| one["name"] == "default").cloned();
    let text = value.as_str().map(str::to_owned);
    text.or_else(|| value.as_array().and_then(named)?["template"].as_str().map(str::to_owned))
}

/// What transformers gives its templates: Python's methods, `raise_exception`, `strftime_now`, its own `tojson`.
fn environment(template: String) -> Result<Environment<'static>, minijinja::Error> {
    let mut environment = Environment::new();
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.set_fuel(Some(FUEL));
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_function("raise_exception", |message: String| -> Result<Value, minijinja::Error> {
        Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
    });
    environment.add_function("strftime_now", |format: String| today(&format));
    environment.add_filter("tojson", to_json);
    environment.add_template_owned("chat", template)?;
    Ok(environment)
}

/// As Python writes it, with its spaces.
fn to_json(value: Value) -> Result<Value, minijinja::Error> {
    struct AsPython;
    impl serde_json::ser::Formatter for AsPython {
        fn begin_array_value<W: ?Sized + std::io::Write>(&mut self, to: &mut W, first: bool) -> std::io::Result<()> {
            to.write_all(if first { b"" } else { b", " })
        }
        fn begin_object_key<W: ?Sized + std::io::Write>(&mut self, to: &mut W, first: bool) -> std::io::Result<()> {
            to.write_all(if first { b"" } else { b", " })
        }
        fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, to: &mut W) -> std::io::Result<()> {
            to.write_all(b": ")
        }
    }
    let mut text = Vec::new();
    serde::Serialize::serialize(&value, &mut serde_json::Serializer::with_formatter(&mut text, AsPython))
        .map_err(|error| minijinja::Error::new(ErrorKind::BadSerialization, error.to_string()))?;
    Ok(Value::from_safe_string(String::from_utf8_lossy(&text).into_owned()))
}

/// The day in UTC, by the parts of `strftime` that templates use.
fn today(format: &str) -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (year, month, day) = date((seconds / 86_400) as i64);
    const MONTHS: &str = "January February March April May June July August September October November December";
    let name = MONTHS.split(' ').nth(month as usize - 1).unwrap_or_default();
    let parts = [
        ("%d", format!("{day:02}")),
        ("%b", name.chars().take(3).collect()),
        ("%B", name.to_owned()),
        ("%Y", year.to_string()),
        ("%m", format!("{month:02}")),
    ];
    parts.iter().fold(format.to_owned(), |text, (part, value)| text.replace(part, value))
}

/// Year, month and day, so many days after 1 January 1970, by the Gregorian calendar, whose leap years repeat every 400 years.
fn date(days: i64) -> (i64, u32, u32) {
    let leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let (mut year, mut left) = (1970, days);
    while left >= 365 + i64::from(leap(year)) {
        left -= 365 + i64::from(leap(year));
        year += 1;
    }
    let february = 28 + i64::from(leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if left < length {
            break;
        }
        left -= length;
        month += 1;
    }
    (year, month, left as u32 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// tests/templates.json: templates, conversations, and what transformers makes of them (tests/make_templates.py).
    #[test]
    fn templates_say_what_they_say_in_transformers() {
        let cases: Vec<Json> = serde_json::from_str(include_str!("../tests/templates.json")).expect("JSON");
        assert!(cases.len() > 4);
        for case in cases {
            let folder = tempfile::tempdir().expect("a folder");
            let config = case["tokenizer_config"].to_string();
            fs::write(folder.path().join("tokenizer_config.json"), config).expect("written");
            if let Some(template) = case["chat_template"].as_str() {
                fs::write(folder.path().join("chat_template.jinja"), template).expect("written");
            }
            let chat = Chat::open(folder.path()).expect("a template");
            let messages = case["messages"].as_array().expect("messages");
            match (chat.prompt(messages), case["prompt"].as_str()) {
                (Ok(prompt), Some(expected)) => assert_eq!(prompt, expected, "{}", case["name"]),
                (Err(error), None) => {
                    let says = case["refused"].as_str().expect("either");
                    assert!(error.to_string().contains(says), "{}: {error}", case["name"]);
                }
                (found, expected) => panic!("{}: {found:?}, not {expected:?}", case["name"]),
            }
        }
    }

    #[test]
    fn a_template_that_does_not_end_is_stopped() {
        let folder = tempfile::tempdir().expect("a folder");
        let endless = "{% for a in range(9999) %}{% for b in range(9999) %}{{ a }}{% endfor %}{% endfor %}";
        fs::write(folder.path().join("chat_template.jinja"), endless).expect("written");
        assert!(Chat::open(folder.path()).expect("a template").prompt(&[]).is_err());
        fs::write(folder.path().join("chat_template.jinja"), "{% for %}").expect("written");
        assert!(Chat::open(folder.path()).is_err());
    }

    #[test]
    fn days_have_dates() {
        assert_eq!(date(0), (1970, 1, 1));
        assert_eq!(date(11_016), (2000, 2, 29));
        assert_eq!(date(19_722), (2023, 12, 31));
        assert_eq!(date(20_088), (2024, 12, 31));
    }
}
