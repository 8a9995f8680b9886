//! Reading JSONL.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic))]

use minijinja::Value;
use minijinja::value::ValueKind;
use rayon::prelude::*;

use super::DataError;

/// One line of a data set.
pub enum Example {
    /// `{"messages": […]}` or `{"question", "answer"}`: a conversation, rendered by the model's chat template. What the
    /// assistant says is learnt.
    Conversation {
        /// The turns, in order, with whatever other fields the template may ask for.
        messages: Vec<Message>,
        /// `tools` of the line, if it has any.
        tools: Option<Value>,
    },
    /// `{"prompt", "completion"}`: plain text, of which the completion is learnt.
    Completion {
        /// Given.
        prompt: String,
        /// Learnt.
        completion: String,
    },
    /// `{"text"}`: all of it is learnt.
    Text(String),
}

/// One turn of a conversation.
pub struct Message {
    /// Who speaks, such as `user` or `assistant`.
    pub role: String,
    /// The turn as the chat template sees it.
    pub value: Value,
}

/// Reads a data set, one JSON object a line. Fields of no form are left alone; a last line break is no line.
///
/// # Errors
/// [`DataError::Line`] with the number of the first line that is empty, no JSON, or of no form or of two;
/// [`DataError::Nothing`] when there is no line.
pub fn parse_jsonl(bytes: &[u8]) -> Result<Vec<Example>, DataError> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(DataError::Nothing { why: "the data set is empty; it needs at least one line of JSON".to_owned() });
    }
    let lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
    let parsed: Vec<Result<Example, String>> = lines.par_iter().map(|line| parse_line(line)).collect();
    let numbered = parsed.into_iter().zip(1_usize..);
    numbered.map(|(example, line)| example.map_err(|why| DataError::Line { line, why })).collect()
}

fn parse_line(line: &[u8]) -> Result<Example, String> {
    if line.iter().all(u8::is_ascii_whitespace) {
        return Err("it is empty; remove it".to_owned());
    }
    let value: Value = serde_json::from_slice(line).map_err(|e| not_json(&e))?;
    if value.kind() != ValueKind::Map {
        return Err("it is JSON but no object; write {…}".to_owned());
    }
    let field = |name| value.get_attr(name).ok().filter(|field| !field.is_undefined());
    let pair = |first: &'static str, second: &'static str| match (field(first), field(second)) {
        (None, None) => Ok(None),
        (Some(a), Some(b)) => Ok(Some((text(first, &a)?, text(second, &b)?))),
        (Some(_), None) => Err(format!("it has {first:?} but no {second:?}")),
        (None, Some(_)) => Err(format!("it has {second:?} but no {first:?}")),
    };
    let (completion, question) = (pair("prompt", "completion")?, pair("question", "answer")?);
    match (field("messages"), completion, question, field("text")) {
        (Some(messages), None, None, None) => {
            Ok(Example::Conversation { messages: conversation(&messages)?, tools: field("tools") })
        }
        (None, Some((prompt, completion)), None, None) => {
            some("completion", &completion)?;
            Ok(Example::Completion { prompt, completion })
        }
        (None, None, Some((question, answer)), None) => {
            some("answer", &answer)?;
            let messages = vec![Message::new("user", &question), Message::new("assistant", &answer)];
            Ok(Example::Conversation { messages, tools: None })
        }
        (None, None, None, Some(plain)) => {
            let plain = text("text", &plain)?;
            some("text", &plain)?;
            Ok(Example::Text(plain))
        }
        (None, None, None, None) => Err(FORMS.to_owned()),
        _ => Err(format!("it has the fields of more than one form; {FORMS}")),
    }
}

const FORMS: &str =
    "a line needs \"messages\", or \"prompt\" and \"completion\", or \"question\" and \"answer\", or \"text\"";

impl Message {
    /// A turn with nothing but its text.
    pub fn new(role: &str, content: &str) -> Self {
        let value = Value::from_pairs([("role", role), ("content", content)]);
        Self { role: role.to_owned(), value }
    }
}

fn conversation(messages: &Value) -> Result<Vec<Message>, String> {
    if messages.kind() != ValueKind::Seq {
        return Err("\"messages\" is no list".to_owned());
    }
    let turns = messages.try_iter().map_err(|_| "\"messages\" is no list".to_owned())?;
    let turns: Vec<Message> =
        turns.zip(1_usize..).map(|(turn, number)| message(turn, number)).collect::<Result<_, _>>()?;
    match turns.iter().any(|turn| turn.role == "assistant") {
        true => Ok(turns),
        false => Err("no message is the assistant's, so there is nothing to learn".to_owned()),
    }
}

fn message(value: Value, number: usize) -> Result<Message, String> {
    let field = |name| value.get_attr(name).ok().filter(|field| !field.is_undefined() && !field.is_none());
    let role = field("role").ok_or_else(|| format!("message {number} has no \"role\""))?;
    let role = text("role", &role)?;
    match field("content") {
        Some(content) => text("content", &content).map(drop)?,
        None if field("tool_calls").is_some() => {}
        None => return Err(format!("message {number} has no \"content\"")),
    }
    Ok(Message { role, value })
}

fn text(name: &str, value: &Value) -> Result<String, String> {
    match (value.kind(), value.as_str()) {
        (ValueKind::String, Some(text)) => Ok(text.to_owned()),
        _ => Err(format!("{name:?} is no text")),
    }
}

fn some(name: &str, text: &str) -> Result<(), String> {
    if text.is_empty() { Err(format!("{name:?} is empty, so there is nothing to learn")) } else { Ok(()) }
}

/// The parser's own message can repeat the data, so only the kind of mistake and its place are told.
fn not_json(error: &serde_json::Error) -> String {
    let what = match error.classify() {
        serde_json::error::Category::Eof => "it ends too early",
        _ => "it is no JSON",
    };
    format!("{what}, at column {}", error.column())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn why(data: &str) -> String {
        match parse_jsonl(data.as_bytes()) {
            Err(error) => error.to_string(),
            Ok(_) => panic!("{data} was taken"),
        }
    }

    #[test]
    fn the_four_forms() {
        let data = concat!(
            "\u{feff}{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":\"b\"}]}\r\n",
            "{\"prompt\":\"\",\"completion\":\"c\"}\n{\"id\":7,\"question\":\"q\",\"answer\":\"r\"}\n{\"text\":\"t\"}\n"
        );
        let examples = parse_jsonl(data.as_bytes()).unwrap();
        assert!(
            matches!(&examples[0], Example::Conversation { messages, tools: None } if messages[1].role == "assistant")
        );
        assert!(
            matches!(&examples[1], Example::Completion { prompt, completion } if prompt.is_empty() && completion == "c")
        );
        assert!(matches!(&examples[2], Example::Conversation { messages, .. } if messages[0].role == "user"));
        assert!(matches!(&examples[3], Example::Text(text) if text == "t"));
    }

    #[test]
    fn a_bad_line_is_named_by_its_number() {
        let good = "{\"text\":\"t\"}\n";
        for (bad, words) in [
            ("", "line 2: it is empty"),
            ("{\"text\":", "line 2: it ends too early, at column 8"),
            ("{'text':1}", "line 2: it is no JSON, at column 2"),
            ("[]", "line 2: it is JSON but no object"),
            ("{\"text\":7}", "line 2: \"text\" is no text"),
            ("{\"text\":\"\"}", "line 2: \"text\" is empty"),
            ("{\"prompt\":\"p\"}", "line 2: it has \"prompt\" but no \"completion\""),
            ("{\"answer\":\"p\"}", "line 2: it has \"answer\" but no \"question\""),
            ("{\"text\":\"a\",\"question\":\"b\",\"answer\":\"c\"}", "line 2: it has the fields of more than one form"),
            ("{\"label\":1}", "line 2: a line needs \"messages\""),
            ("{\"messages\":\"x\"}", "line 2: \"messages\" is no list"),
            ("{\"messages\":[]}", "line 2: no message is the assistant's"),
            ("{\"messages\":[{\"content\":\"x\"}]}", "line 2: message 1 has no \"role\""),
            ("{\"messages\":[{\"role\":\"assistant\"}]}", "line 2: message 1 has no \"content\""),
        ] {
            let said = why(&format!("{good}{bad}\n{good}"));
            assert!(said.starts_with(words), "{bad}: {said}");
        }
        assert!(why("").contains("empty") && why("\n \n").contains("empty"));
    }

    #[test]
    fn no_message_repeats_the_data() {
        for bad in ["{\"text\":\"secret\" \"secret\"}", "\"secret\"", "{\"messages\":[\"secret\"]}", "secret"] {
            assert!(!why(bad).contains("secret"), "{}", why(bad));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, text in "[{}\\[\\]\":,a-z\\\\ ]{0,40}") {
            let _ = parse_jsonl(&bytes);
            let _ = parse_jsonl(text.as_bytes());
        }
    }
}
