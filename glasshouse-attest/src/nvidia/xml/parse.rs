use quick_xml::events::{BytesDecl, BytesStart, Event};
use quick_xml::reader::Reader;

use super::{Attribute, Element, Namespace, Node, XmlError};

/// Manifests are 20 to 30 KiB, four deep, with some ninety elements of at most twenty attributes.
const MAX_BYTES: usize = 512 * 1024;
const MAX_DEPTH: usize = 16;
const MAX_ELEMENTS: usize = 8 * 1024;
const MAX_ATTRIBUTES: usize = 128;

/// Parses a document into its root element.
///
/// # Errors
/// The first thing that is not in the subset.
pub(crate) fn parse(document: &[u8]) -> Result<Element, XmlError> {
    let text = ascii(document)?;
    let mut reader = Reader::from_str(text);
    let mut tree = Tree::default();
    loop {
        let at = usize::try_from(reader.buffer_position()).unwrap_or(usize::MAX);
        let refuse = |what| XmlError { what, at };
        match reader.read_event().map_err(|_| refuse("text that is not well-formed XML"))? {
            Event::Start(start) => tree.open(&start).map_err(refuse)?,
            Event::Empty(start) => {
                tree.open(&start).map_err(refuse)?;
                tree.close().map_err(refuse)?;
            }
            Event::End(end) if end.name().as_ref().bytes().all(is_name_byte) => tree.close().map_err(refuse)?,
            Event::End(_) => return Err(refuse("an end tag with more than a name")),
            Event::Text(text) => tree.text(&text.into_inner()).map_err(refuse)?,
            Event::GeneralRef(name) => {
                let character = predefined(&name.into_inner()).ok_or(refuse("a reference beyond the five"))?;
                tree.reference(character).map_err(refuse)?;
            }
            Event::Decl(declaration) if at == 0 => check_declaration(&declaration).map_err(refuse)?,
            Event::Decl(_) => return Err(refuse("an XML declaration that is not at the start")),
            Event::Comment(_) => return Err(refuse("a comment")),
            Event::CData(_) => return Err(refuse("a CDATA section")),
            Event::PI(_) => return Err(refuse("a processing instruction")),
            Event::DocType(_) => return Err(refuse("a document type declaration")),
            Event::Eof => return tree.finish().map_err(refuse),
        }
    }
}

fn ascii(document: &[u8]) -> Result<&str, XmlError> {
    if document.len() > MAX_BYTES {
        return Err(XmlError { what: "a document of more than 512 KiB", at: MAX_BYTES });
    }
    let allowed = |b: &u8| matches!(b, b'\n' | b'\t' | 0x20..=0x7e);
    match document.iter().position(|b| !allowed(b)) {
        Some(at) => Err(XmlError { what: "a byte that is not printable ASCII, tab or line feed", at }),
        None => str::from_utf8(document).map_err(|_| XmlError { what: "a byte that is not ASCII", at: 0 }),
    }
}

fn check_declaration(declaration: &BytesDecl<'_>) -> Result<(), &'static str> {
    let version = declaration.version().is_ok_and(|version| version == "1.0");
    let encoding = declaration.encoding().is_none_or(|encoding| {
        encoding.is_ok_and(|name| name.eq_ignore_ascii_case("utf-8") || name.eq_ignore_ascii_case("us-ascii"))
    });
    if version && encoding { Ok(()) } else { Err("an XML declaration other than version 1.0 in UTF-8") }
}

fn predefined(name: &str) -> Option<char> {
    match name {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        _ => None,
    }
}

#[derive(Default)]
struct Tree {
    open: Vec<Element>,
    root: Option<Element>,
    elements: usize,
}

impl Tree {
    fn open(&mut self, start: &BytesStart<'_>) -> Result<(), &'static str> {
        self.elements = self.elements.saturating_add(1);
        if self.root.is_some() {
            return Err("a second root element");
        }
        if self.open.len() >= MAX_DEPTH || self.elements > MAX_ELEMENTS {
            return Err("a tree that is too deep or too large");
        }
        let (prefix, local) = qualified(start.name().as_ref())?;
        let (declared, plain) = attributes(start)?;
        let mut element = Element {
            prefix,
            local,
            namespace: String::new(),
            declared,
            attributes: Vec::with_capacity(plain.len()),
            children: Vec::new(),
        };
        element.namespace = self.namespace_of(&element.declared, &element.prefix)?;
        for (prefix, local, value) in plain {
            // The default namespace does not apply to attributes.
            let namespace = match prefix.as_str() {
                "" => String::new(),
                prefix => self.namespace_of(&element.declared, prefix)?,
            };
            if element.attribute(&namespace, &local).is_some() {
                return Err("one attribute twice");
            }
            element.attributes.push(Attribute { prefix, local, namespace, value });
        }
        self.open.push(element);
        Ok(())
    }

    fn close(&mut self) -> Result<(), &'static str> {
        let element = self.open.pop().ok_or("an end tag without its start")?;
        match self.open.last_mut() {
            Some(parent) => parent.children.push(Node::Element(element)),
            None => self.root = Some(element),
        }
        Ok(())
    }

    fn text(&mut self, text: &str) -> Result<(), &'static str> {
        if text.contains("]]>") {
            return Err("\"]]>\" in text");
        }
        match self.open.last_mut() {
            None if text.trim_ascii().is_empty() => Ok(()),
            None => Err("text outside of the root element"),
            Some(element) => {
                append(element, text);
                Ok(())
            }
        }
    }

    fn reference(&mut self, character: char) -> Result<(), &'static str> {
        let element = self.open.last_mut().ok_or("a reference outside of the root element")?;
        append(element, character.encode_utf8(&mut [0; 4]));
        Ok(())
    }

    fn finish(self) -> Result<Element, &'static str> {
        if self.open.is_empty() { self.root.ok_or("no root element") } else { Err("an element without its end") }
    }

    /// The URI that a prefix stands for here; the empty prefix may stand for none.
    fn namespace_of(&self, declared: &[Namespace], prefix: &str) -> Result<String, &'static str> {
        let outer = self.open.iter().rev().flat_map(|element| &element.declared);
        match declared.iter().chain(outer).find(|(declared, _)| declared == prefix) {
            Some((_, uri)) => Ok(uri.clone()),
            None if prefix.is_empty() => Ok(String::new()),
            None => Err("a prefix that is not declared"),
        }
    }
}

fn append(element: &mut Element, text: &str) {
    match element.children.last_mut() {
        Some(Node::Text(before)) => before.push_str(text),
        _ => element.children.push(Node::Text(text.to_owned())),
    }
}

type Plain = (String, String, String);

/// Splits a start tag's attributes into namespace declarations and the others.
fn attributes(start: &BytesStart<'_>) -> Result<(Vec<Namespace>, Vec<Plain>), &'static str> {
    let (mut declared, mut plain) = (Vec::new(), Vec::new());
    for (count, attribute) in start.attributes().enumerate() {
        let attribute = attribute.map_err(|_| "an attribute that is not well-formed, or is there twice")?;
        if count >= MAX_ATTRIBUTES {
            return Err("too many attributes");
        }
        let (prefix, local) = qualified(attribute.key.as_ref())?;
        let value = attribute_value(&attribute.value)?;
        match (prefix.as_str(), local.as_str()) {
            ("xml", _) | ("xmlns", "xml" | "xmlns") => return Err("an xml: attribute"),
            ("xmlns", _) | ("", "xmlns") if value.is_empty() => return Err("an empty namespace declaration"),
            ("xmlns", _) => declared.push((local, value)),
            ("", "xmlns") => declared.push((String::new(), value)),
            _ => plain.push((prefix, local, value)),
        }
    }
    Ok((declared, plain))
}

/// Resolves the five references. White space other than the space would be changed by XML's own normalization.
fn attribute_value(raw: &str) -> Result<String, &'static str> {
    if raw.contains(['<', '\n', '\t']) {
        return Err("'<' or white space other than the space in an attribute value");
    }
    let mut parts = raw.split('&');
    let mut value = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (name, rest) = part.split_once(';').ok_or("'&' that begins no reference")?;
        value.push(predefined(name).ok_or("a reference beyond the five")?);
        value.push_str(rest);
    }
    Ok(value)
}

fn qualified(name: &str) -> Result<(String, String), &'static str> {
    let (prefix, local) = name.split_once(':').unwrap_or(("", name));
    if (!prefix.is_empty() || !name.contains(':')) && (prefix.is_empty() || is_name(prefix)) && is_name(local) {
        Ok((prefix.to_owned(), local.to_owned()))
    } else {
        Err("a name that is not of letters, digits, '.', '-' and '_'")
    }
}

fn is_name(name: &str) -> bool {
    let begins = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    begins && name.bytes().all(|b| b != b':' && is_name_byte(b))
}

fn is_name_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b':')
}
