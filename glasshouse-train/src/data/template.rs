//! A model's own chat template, rendered as `transformers` renders it, and which of its text the assistant says.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, clippy::arithmetic_side_effects))]

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error, ErrorKind, Value, context};

use super::encoder::Piece;
use super::{DataError, Date, Message};

/// The instructions that one rendering may take: far more than any conversation needs, far less than forever.
const FUEL: u64 = 50_000_000;
const NAME: &str = "chat";
/// Stand where `{% generation %}` begins and ends. Not characters: Unicode reserves them for use inside programs.
const BEGIN: char = '\u{fdd0}';
const END: char = '\u{fdd1}';

/// A chat template and the special tokens it may name.
pub struct ChatTemplate {
    environment: Environment<'static>,
    marked: bool,
    bos: String,
    eos: String,
}

impl ChatTemplate {
    /// Reads a template as `apply_chat_template` of `transformers` reads it: blocks trimmed, loop controls, Python's
    /// string methods, `raise_exception`, `strftime_now` (which says `today`), `tojson` without HTML escapes, and
    /// `{% generation %}`.
    ///
    /// # Errors
    /// [`DataError::Template`] for a template that is none.
    pub fn new(source: &str, bos: &str, eos: &str, today: Date) -> Result<Self, DataError> {
        let broken = |why: String| DataError::Template { why };
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        let syntax = syntax.map_err(|e| broken(format!("cannot be read: {e}")))?;
        let mut environment = Environment::new();
        environment.set_syntax(syntax);
        environment.set_fuel(Some(FUEL));
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |why: String| -> Result<String, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, format!("{RAISED}{why}")))
        });
        environment.add_function("strftime_now", move |format: String| -> Result<String, Error> {
            today.strftime(&format).ok_or_else(|| {
                Error::new(ErrorKind::InvalidOperation, format!("{RAISED}strftime_now does not know {format:?}"))
            })
        });
        environment.add_filter("tojson", python_json);
        let (source, marked) = with_marks(source);
        environment
            .add_template_owned(NAME, source)
            .map_err(|e| broken(format!("cannot be read: {}", describe(&e))))?;
        Ok(Self { environment, marked, bos: bos.to_owned(), eos: eos.to_owned() })
    }

    /// The text of a conversation.
    ///
    /// # Errors
    /// [`DataError::Template`] when the template refuses it.
    pub fn render(&self, messages: &[Message], tools: Option<&Value>, prompt: bool) -> Result<String, DataError> {
        let mut text = self.marked_text(messages, tools, prompt)?;
        text.retain(|letter| letter != BEGIN && letter != END);
        Ok(text)
    }

    /// The text of a conversation in pieces: what is given, and what the assistant says. Where the template has
    /// `{% generation %}`, that is what is within; otherwise it is what each assistant turn adds to the rendered turns
    /// before it and the generation prompt, which is exactly what the model will have to write.
    ///
    /// # Errors
    /// [`DataError::Template`] when the template refuses the conversation, or renders earlier turns otherwise once later
    /// ones are there, so that no part of the text is a turn's.
    pub fn pieces(&self, messages: &[Message], tools: Option<&Value>) -> Result<Vec<Piece>, DataError> {
        if self.marked {
            return split_at_marks(&self.marked_text(messages, tools, false)?);
        }
        let whole = self.render(messages, tools, false)?;
        let (mut pieces, mut at) = (Vec::new(), 0);
        for (index, _) in messages.iter().enumerate().filter(|(_, message)| message.role == "assistant") {
            let before = messages.get(..index).unwrap_or_default();
            let through = messages.get(..=index).unwrap_or_default();
            let end = self.render(through, tools, false)?;
            let start = self.start_of_turn(before, tools, &end)?;
            if !whole.starts_with(&end) || start < at {
                return Err(DataError::Template { why: REWRITES.to_owned() });
            }
            pieces.extend(piece(&whole, at, start, false));
            pieces.extend(piece(&whole, start, end.len(), true));
            at = end.len();
        }
        pieces.extend(piece(&whole, at, whole.len(), false));
        Ok(pieces)
    }

    /// Where in `end`, the conversation through an assistant's turn, the model takes over.
    fn start_of_turn(&self, before: &[Message], tools: Option<&Value>, end: &str) -> Result<usize, DataError> {
        let prompted = self.render(before, tools, true)?;
        if end.starts_with(&prompted) {
            return Ok(prompted.len());
        }
        // The generation prompt holds more than the turn does, such as the start of a thought: what both share is given.
        let given = self.render(before, tools, false)?;
        if !end.starts_with(&given) {
            return Err(DataError::Template { why: REWRITES.to_owned() });
        }
        let shared = prompted.char_indices().zip(end.char_indices()).find(|(a, b)| a != b);
        Ok(shared.map_or(prompted.len().min(end.len()), |((at, _), _)| at).max(given.len()))
    }

    fn marked_text(&self, messages: &[Message], tools: Option<&Value>, prompt: bool) -> Result<String, DataError> {
        if self.marked && messages.iter().any(|message| holds_mark(&message.value)) {
            return Err(DataError::Template { why: "cannot take the characters U+FDD0 and U+FDD1".to_owned() });
        }
        let broken = |e: Error| DataError::Template { why: format!("refuses it: {}", describe(&e)) };
        let messages: Vec<Value> = messages.iter().map(|message| message.value.clone()).collect();
        let template = self.environment.get_template(NAME).map_err(broken)?;
        let tools = tools.cloned().unwrap_or(Value::from(()));
        let context = context! {
            messages,
            tools,
            documents => Value::from(()),
            add_generation_prompt => prompt,
            bos_token => self.bos.as_str(),
            eos_token => self.eos.as_str(),
        };
        template.render(context).map_err(broken)
    }
}

const REWRITES: &str = "renders earlier turns otherwise once later ones are there, so what the assistant says cannot be \
                        found; mark it with {% generation %} and {% endgeneration %}";
const RAISED: &str = "it says: ";

/// What went wrong and in which line of the template. The engine's own details can repeat the data.
fn describe(error: &Error) -> String {
    let place = error.line().map(|line| format!(" in its line {line}")).unwrap_or_default();
    match error.detail().and_then(|detail| detail.strip_prefix(RAISED)) {
        Some(raised) => format!("{RAISED}{raised}{place}"),
        None => format!("{}{place}", error.kind()),
    }
}

fn holds_mark(value: &Value) -> bool {
    value.to_string().contains([BEGIN, END])
}

/// `{% generation %}` becomes a block that writes a mark, with the same control of white space around it.
fn with_marks(source: &str) -> (String, bool) {
    let (mut out, mut rest, mut marked) = (String::with_capacity(source.len()), source, false);
    while let Some((before, tail)) = rest.split_once("{%") {
        let Some((tag, after)) = tail.split_once("%}") else { break };
        let inner = tag.trim_start_matches(['-', '+']).trim_end_matches(['-', '+']);
        let mark = match inner.trim() {
            "generation" => Some(BEGIN),
            "endgeneration" => Some(END),
            _ => None,
        };
        out.push_str(before);
        match mark {
            None => out.push_str(&format!("{{%{tag}%}}")),
            Some(mark) => {
                let control =
                    |at: Option<char>| at.filter(|c| matches!(c, '-' | '+')).map(String::from).unwrap_or_default();
                let (left, right) = (control(tag.chars().next()), control(tag.chars().last()));
                out.push_str(&format!("{{%{left} if true %}}{{{{ '{mark}' }}}}{{% endif {right}%}}"));
                marked = true;
            }
        }
        rest = after;
    }
    out.push_str(rest);
    (out, marked)
}

fn split_at_marks(text: &str) -> Result<Vec<Piece>, DataError> {
    let unpaired = || DataError::Template { why: "has {% generation %} within itself or without its end".to_owned() };
    let (mut pieces, mut rest) = (Vec::new(), text);
    while let Some((given, tail)) = rest.split_once(BEGIN) {
        let (said, after) = tail.split_once(END).ok_or_else(unpaired)?;
        if said.contains(BEGIN) || given.contains(END) {
            return Err(unpaired());
        }
        pieces.push(Piece { text: given.to_owned(), learnt: false });
        pieces.push(Piece { text: said.to_owned(), learnt: true });
        rest = after;
    }
    pieces.push(Piece { text: rest.to_owned(), learnt: false });
    pieces.retain(|piece| !piece.text.is_empty());
    Ok(pieces)
}

fn piece(text: &str, from: usize, to: usize, learnt: bool) -> Option<Piece> {
    let text = text.get(from..to).filter(|text| !text.is_empty())?;
    Some(Piece { text: text.to_owned(), learnt })
}

/// As Python's `json.dumps(value, ensure_ascii=False)`: a space after commas and colons.
fn python_json(value: &Value) -> Result<String, Error> {
    let mut out = Vec::new();
    let mut writer = serde_json::Serializer::with_formatter(&mut out, Spaced);
    let written = serde::Serialize::serialize(value, &mut writer).map_err(|e| e.to_string());
    written
        .and_then(|()| String::from_utf8(out).map_err(|e| e.to_string()))
        .map_err(|why| Error::new(ErrorKind::BadSerialization, why))
}

struct Spaced;

impl serde_json::ser::Formatter for Spaced {
    fn begin_array_value<W: ?Sized + std::io::Write>(&mut self, writer: &mut W, first: bool) -> std::io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }
    fn begin_object_key<W: ?Sized + std::io::Write>(&mut self, writer: &mut W, first: bool) -> std::io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }
    fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, writer: &mut W) -> std::io::Result<()> {
        writer.write_all(b": ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHATML: &str = "{%- for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{%- \
                          endfor %}{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{%- endif %}";

    fn template(source: &str) -> ChatTemplate {
        ChatTemplate::new(source, "<s>", "</s>", Date { days: 20_780 }).unwrap()
    }

    fn turns(turns: &[(&str, &str)]) -> Vec<Message> {
        turns.iter().map(|(role, text)| Message::new(role, text)).collect()
    }

    fn said(template: &ChatTemplate, messages: &[Message]) -> Vec<String> {
        let pieces = template.pieces(messages, None).unwrap();
        let whole: String = pieces.iter().map(|piece| piece.text.as_str()).collect();
        assert_eq!(whole, template.render(messages, None, false).unwrap());
        pieces.into_iter().filter(|piece| piece.learnt).map(|piece| piece.text).collect()
    }

    #[test]
    fn what_the_assistant_says_is_found_by_prefixes() {
        let talk = turns(&[("user", "a"), ("assistant", "b"), ("user", "b"), ("assistant", "b")]);
        assert_eq!(said(&template(CHATML), &talk), ["b<|im_end|>\n", "b<|im_end|>\n"]);
        // The prompt opens a thought that the turns do not have.
        let thinking = CHATML.replace("assistant\\n' }}{%- endif", "assistant\\n<think>\\n' }}{%- endif");
        assert_eq!(said(&template(&thinking), &talk), ["b<|im_end|>\n", "b<|im_end|>\n"]);
        // No generation prompt at all: the header counts as said.
        let silent = CHATML.split("{%- if add").next().unwrap();
        assert_eq!(said(&template(silent), &talk[..2]), ["<|im_start|>assistant\nb<|im_end|>\n"]);
    }

    #[test]
    fn a_template_that_rewrites_earlier_turns_is_refused() {
        let source =
            "{% for m in messages %}{% if m.role != 'assistant' or loop.last %}{{ m.content }}{% endif %}{% endfor %}";
        let talk = turns(&[("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]);
        let error = template(source).pieces(&talk, None).unwrap_err();
        assert!(error.to_string().contains("{% generation %}"), "{error}");
    }

    #[test]
    fn generation_marks_say_what_is_learnt() {
        let source = "{%- for m in messages -%}\n  {%- if m.role == 'assistant' -%}\n    {{ '[A]' }}\n    {%- generation -%}\n    {{ m.content + eos_token }}\n    {%- endgeneration -%}\n  {%- else -%}\n    {{ '[U]' + m.content }}\n  {%- endif -%}\n{%- endfor -%}";
        let talk = turns(&[("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]);
        let template = template(source);
        assert_eq!(template.render(&talk, None, false).unwrap(), "[U]a[A]b</s>[U]c[A]d</s>");
        assert_eq!(said(&template, &talk), ["b</s>", "d</s>"]);
        let error = template.pieces(&turns(&[("assistant", "\u{fdd0}")]), None).unwrap_err();
        assert!(error.to_string().contains("U+FDD0"), "{error}");
    }

    #[test]
    fn what_published_templates_call() {
        let source = "{%- for m in messages %}{%- if m.role == 'skip' %}{%- continue %}{%- endif %}{{ m.content.strip().split('|')[0] | upper }}{{ m | tojson }}\n{%- if loop.index0 >= 2 %}{%- break %}{%- endif %}{%- endfor %}{{ strftime_now('%d %b %Y') }}";
        let talk = turns(&[("user", " a|b "), ("skip", "c"), ("user", "é<\"")]);
        let text = template(source).render(&talk, None, false).unwrap();
        assert_eq!(
            text,
            "A{\"role\": \"user\", \"content\": \" a|b \"}É<\"{\"role\": \"user\", \"content\": \"é<\\\"\"}23 Nov 2026"
        );
    }

    #[test]
    fn a_refusal_says_what_the_template_says() {
        let talk = turns(&[("user", "secret")]);
        let raising = template("{{ raise_exception('roles must alternate') }}");
        let error = raising.render(&talk, None, false).unwrap_err().to_string();
        assert!(error.contains("roles must alternate"), "{error}");
        let failing =
            template("\n{{ messages[0].content.nothing() }}").render(&talk, None, false).unwrap_err().to_string();
        assert!(failing.contains("line 2") && !failing.contains("secret"), "{failing}");
        assert!(ChatTemplate::new("{% if %}", "", "", Date { days: 0 }).is_err());
        let endless = template("{% for a in range(9999) %}{% for b in range(9999) %}{{ a }}{% endfor %}{% endfor %}");
        assert!(endless.render(&talk, None, false).is_err());
    }
}
