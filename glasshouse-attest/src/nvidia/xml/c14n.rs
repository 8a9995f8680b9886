use super::{Element, Namespace, Node};

/// Canonical XML 1.1 without comments (W3C, 2008-05-02) of an element as the only apex: `inherited` are the namespace
/// declarations in force around it, outermost first, and `omitted` is a child that the node set leaves out, as the
/// enveloped-signature transform does.
///
/// The subset makes the rest simple: no `xml:` attributes to inherit, no comments or processing instructions, text
/// without carriage returns.
pub(crate) fn canonicalize(apex: &Element, inherited: &[Namespace], omitted: Option<&Element>) -> Vec<u8> {
    let mut rendered = Vec::new();
    let mut output = String::new();
    write(apex, inherited, omitted, &mut rendered, &mut output);
    output.into_bytes()
}

fn write(
    element: &Element,
    inherited: &[Namespace],
    omitted: Option<&Element>,
    rendered: &mut Vec<Namespace>,
    output: &mut String,
) {
    let outside = rendered.len();
    let mut declarations: Vec<&Namespace> = Vec::new();
    // Inner declarations hide outer ones of the same prefix; one that is in force in the output already is superfluous.
    for declaration in element.declared.iter().chain(inherited.iter().rev()) {
        let hidden = declarations.iter().any(|inner| inner.0 == declaration.0);
        if !hidden {
            declarations.push(declaration);
        }
    }
    declarations.retain(|d| rendered.iter().rev().find(|r| r.0 == d.0).is_none_or(|r| r.1 != d.1));
    declarations.sort();

    output.push('<');
    push_name(&element.prefix, &element.local, output);
    for (prefix, uri) in &declarations {
        output.push_str(if prefix.is_empty() { " xmlns" } else { " xmlns:" });
        output.push_str(prefix);
        push_value(uri, output);
    }
    let mut attributes: Vec<_> = element.attributes.iter().collect();
    attributes.sort_by(|a, b| (&a.namespace, &a.local).cmp(&(&b.namespace, &b.local)));
    for attribute in attributes {
        output.push(' ');
        push_name(&attribute.prefix, &attribute.local, output);
        push_value(&attribute.value, output);
    }
    output.push('>');

    rendered.extend(declarations.into_iter().cloned());
    for node in &element.children {
        match node {
            Node::Text(text) => push_text(text, output),
            Node::Element(child) if omitted.is_some_and(|omitted| std::ptr::eq(omitted, child)) => {}
            Node::Element(child) => write(child, &[], None, rendered, output),
        }
    }
    rendered.truncate(outside);

    output.push_str("</");
    push_name(&element.prefix, &element.local, output);
    output.push('>');
}

fn push_name(prefix: &str, local: &str, output: &mut String) {
    if !prefix.is_empty() {
        output.push_str(prefix);
        output.push(':');
    }
    output.push_str(local);
}

fn push_value(value: &str, output: &mut String) {
    output.push_str("=\"");
    for character in value.chars() {
        match character {
            '&' => output.push_str("&amp;"),
            '<' => output.push_str("&lt;"),
            '"' => output.push_str("&quot;"),
            '\t' => output.push_str("&#x9;"),
            '\n' => output.push_str("&#xA;"),
            '\r' => output.push_str("&#xD;"),
            other => output.push(other),
        }
    }
    output.push('"');
}

fn push_text(text: &str, output: &mut String) {
    for character in text.chars() {
        match character {
            '&' => output.push_str("&amp;"),
            '<' => output.push_str("&lt;"),
            '>' => output.push_str("&gt;"),
            '\r' => output.push_str("&#xD;"),
            other => output.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;
    use proptest::prelude::*;

    fn canonical(document: &str) -> String {
        String::from_utf8(canonicalize(&parse(document.as_bytes()).unwrap(), &[], None)).unwrap()
    }

    /// Examples 3.3 and 3.5 of the recommendation, as far as they lie in the subset.
    #[test]
    fn examples_of_the_recommendation() {
        let input = "<doc>\n   <e1   />\n   <e2   ></e2>\n   <e3   name = \"elem3\"   id=\"elem3\"   />\n   \
            <e5 a:attr=\"out\" b:attr=\"sorted\" attr2=\"all\" attr=\"I'm\"\n      \
            xmlns:b=\"http://www.ietf.org\"\n      xmlns:a=\"http://www.w3.org\"\n      \
            xmlns=\"http://example.org\"/>\n   <e6 xmlns:a=\"http://www.w3.org\">\n      \
            <e7 xmlns=\"http://www.ietf.org\">\n         <e8 xmlns:a=\"http://www.w3.org\"/>\n      </e7>\n   \
            </e6>\n</doc>";
        let output = "<doc>\n   <e1></e1>\n   <e2></e2>\n   <e3 id=\"elem3\" name=\"elem3\"></e3>\n   \
            <e5 xmlns=\"http://example.org\" xmlns:a=\"http://www.w3.org\" xmlns:b=\"http://www.ietf.org\" \
            attr=\"I'm\" attr2=\"all\" b:attr=\"sorted\" a:attr=\"out\"></e5>\n   \
            <e6 xmlns:a=\"http://www.w3.org\">\n      <e7 xmlns=\"http://www.ietf.org\">\n         <e8></e8>\n      \
            </e7>\n   </e6>\n</doc>";
        assert_eq!(canonical(input), output);
        let text = "<a b='x&quot;y&amp;&lt;z>'>1&lt;2 &amp;&gt; \"'</a>";
        assert_eq!(canonical(text), "<a b=\"x&quot;y&amp;&lt;z>\">1&lt;2 &amp;&gt; \"'</a>");
    }

    #[test]
    fn an_apex_brings_the_namespaces_around_it() {
        let root = parse(b"<r xmlns='u' xmlns:p='v' xmlns:q='w'><p:s xmlns:p='x'><t/></p:s></r>").unwrap();
        let child = root.elements().next().unwrap();
        let canonical = canonicalize(child, &root.declared, None);
        assert_eq!(canonical, b"<p:s xmlns=\"u\" xmlns:p=\"x\" xmlns:q=\"w\"><t></t></p:s>");
        assert_eq!(canonicalize(&root, &[], Some(child)), b"<r xmlns=\"u\" xmlns:p=\"v\" xmlns:q=\"w\"></r>");
    }

    #[test]
    fn what_is_not_in_the_subset() {
        for bad in [
            "",
            " ",
            "<a>",
            "</a>",
            "<a></b>",
            "<a/><b/>",
            "<a/>x",
            "x<a/>",
            "<a b=1/>",
            "<a b/>",
            "<a b='1' b='2'/>",
            "<!DOCTYPE a><a/>",
            "<a><!-- --></a>",
            "<!-- --><a/>",
            "<a><?p?></a>",
            "<?p?><a/>",
            "<a><![CDATA[x]]></a>",
            "<a>&#65;</a>",
            "<a>&x;</a>",
            "<a b='&#9;'/>",
            "<a b='&x;'/>",
            "<a b='&'/>",
            "<a>&</a>",
            "<a b='<'/>",
            "<a b='x\ny'/>",
            "<a b='x\ty'/>",
            "<a>\r</a>",
            "<a>\u{e9}</a>",
            "<a>\u{0}</a>",
            "<a>]]></a>",
            "<p:a/>",
            "<a p:b=''/>",
            "<a xmlns:p=''/>",
            "<a xmlns=''/>",
            "<a xml:id='x'/>",
            "<a xmlns:xml='u'/>",
            "<a:b:c xmlns:a='u'/>",
            "<:a/>",
            "<a: xmlns:a='u'/>",
            "<1/>",
            "<a xmlns:p='u' xmlns:q='u' p:b='' q:b=''/>",
            "<?xml version='1.1'?><a/>",
            "<?xml version='1.0' encoding='latin1'?><a/>",
            " <?xml version='1.0'?><a/>",
            "<a><?xml version='1.0'?></a>",
            "\u{feff}<a/>",
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad:?}");
        }
        let deep = |n: usize| "<a>".repeat(n) + &"</a>".repeat(n);
        assert!(parse(deep(16).as_bytes()).is_ok() && parse(deep(17).as_bytes()).is_err());
        assert!(parse(b"<?xml version='1.0' encoding='UTF-8'?>\n<a/>\n").is_ok());
    }

    proptest! {
        #[test]
        fn a_canonical_form_is_its_own(text in "[a-c<>/&;:='\" \nxmlns]{0,60}") {
            let _ = parse(text.as_bytes());
            let wrapped = format!("<a xmlns:b='u' xmlns:c='v'>{text}</a>");
            if let Ok(element) = parse(wrapped.as_bytes()) {
                let once = canonicalize(&element, &[], None);
                let again = parse(&once).unwrap();
                prop_assert_eq!(canonicalize(&again, &[], None), once);
            }
        }

        #[test]
        fn never_panics(bytes: Vec<u8>) {
            let _ = parse(&bytes);
        }
    }
}
