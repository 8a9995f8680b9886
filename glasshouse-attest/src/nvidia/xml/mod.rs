//! The XML of NVIDIA's reference manifests and nothing more: a strict subset of XML 1.0 with namespaces, and its
//! canonical form (C14N 1.1).
//!
//! Refused, because the documents do not use it and each has been part of an attack on XML signatures: DTDs and
//! entities beyond the five, numeric character references, comments, processing instructions, CDATA, carriage
//! returns, characters beyond ASCII, white space other than the space in attribute values, `xml:` attributes, empty
//! namespace declarations, trees that are deep or large.

mod c14n;
mod parse;

pub(super) use c14n::canonicalize;
pub(super) use parse::parse;

/// A namespace declaration: prefix (empty for the default one) and URI.
pub(super) type Namespace = (String, String);

/// Where and why a document is not in the subset.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} near byte {at}")]
pub(super) struct XmlError {
    pub(super) what: &'static str,
    pub(super) at: usize,
}

/// An element with everything that its canonical form needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Element {
    pub(super) prefix: String,
    pub(super) local: String,
    /// Namespace URI of the element; empty when it has none.
    pub(super) namespace: String,
    /// Declarations on this element.
    pub(super) declared: Vec<Namespace>,
    pub(super) attributes: Vec<Attribute>,
    pub(super) children: Vec<Node>,
}

/// An attribute that is not a namespace declaration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Attribute {
    pub(super) prefix: String,
    pub(super) local: String,
    /// Namespace URI; empty for attributes without prefix.
    pub(super) namespace: String,
    pub(super) value: String,
}

/// What is inside an element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Node {
    Element(Element),
    Text(String),
}

impl Element {
    pub(super) fn is(&self, namespace: &str, local: &str) -> bool {
        self.namespace == namespace && self.local == local
    }

    pub(super) fn elements(&self) -> impl Iterator<Item = &Self> {
        self.children.iter().filter_map(|node| match node {
            Node::Element(element) => Some(element),
            Node::Text(_) => None,
        })
    }

    /// The value of an attribute; `namespace` is empty for one without prefix.
    pub(super) fn attribute(&self, namespace: &str, local: &str) -> Option<&str> {
        self.attributes.iter().find(|a| a.namespace == namespace && a.local == local).map(|a| a.value.as_str())
    }

    /// The text of an element that holds nothing else.
    pub(super) fn text(&self) -> Option<&str> {
        match self.children.as_slice() {
            [] => Some(""),
            [Node::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// The child elements of an element that holds nothing else but white space.
    pub(super) fn only_elements(&self) -> Option<Vec<&Self>> {
        let blank = |node: &Node| match node {
            Node::Element(_) => true,
            Node::Text(text) => text.trim_ascii().is_empty(),
        };
        self.children.iter().all(blank).then(|| self.elements().collect())
    }

    /// How many elements below this one satisfy a condition, itself not counted.
    pub(super) fn count_below(&self, condition: &impl Fn(&Self) -> bool) -> usize {
        let one = |element: &Self| usize::from(condition(element)).saturating_add(element.count_below(condition));
        self.elements().map(one).fold(0, usize::saturating_add)
    }
}
