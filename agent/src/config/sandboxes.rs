//! Definitions of sandboxes.
//!
//! ```toml
//! [sandbox.small]        # the name for --sandbox
//! kind = "gvisor"        # `sandscope sandboxes` lists the kinds
//! platform = "ptrace"    # what else a kind takes
//! ```

use super::{Problem, Source};
use crate::{
    nearest::suggestion,
    sandbox::{self, Named, Sandbox},
};
use serde::Deserialize;
use std::{ops::Range, path::Path};
use toml::{
    Spanned,
    de::{DeTable, DeValue, ValueDeserializer},
};

/// The sandboxes that a file defines, in the order of their names.
///
/// # Errors
/// When the file can't be read, is no TOML, or has something that is not known.
pub fn sandboxes(file: &Path) -> Result<Vec<Box<dyn Sandbox>>, Problem> {
    let text = Source::text(file)?;
    parse(&Source { file, text: &text })
}

fn parse(source: &Source<'_>) -> Result<Vec<Box<dyn Sandbox>>, Problem> {
    let document = DeTable::parse(source.text).map_err(|error| source.refused(&error, &(0..0)))?;
    let mut sandboxes = Vec::new();
    for (key, value) in document.into_inner() {
        if key.get_ref() != "sandbox" {
            let message = format!("unknown table `{}`{}", key.get_ref(), suggestion(key.get_ref(), ["sandbox"]));
            return Err(source.problem(Some(key.span()), message));
        }
        sandboxes.extend(define_all(source, value)?);
    }
    Ok(sandboxes)
}

/// The sandboxes that a table defines, in the order of their names.
pub(super) fn define_all(
    source: &Source<'_>,
    definitions: Spanned<DeValue<'_>>,
) -> Result<Vec<Box<dyn Sandbox>>, Problem> {
    let span = definitions.span();
    let DeValue::Table(definitions) = definitions.into_inner() else {
        return Err(source.problem(Some(span), "`sandbox` has to be a table: write [sandbox.NAME]"));
    };
    let define = |(name, definition): (Spanned<_>, _)| {
        let span = name.span();
        define(source, &String::from(name.into_inner()), &span, definition)
    };
    definitions.into_iter().map(define).collect()
}

fn define(
    source: &Source<'_>,
    name: &str,
    name_span: &Range<usize>,
    definition: Spanned<DeValue<'_>>,
) -> Result<Box<dyn Sandbox>, Problem> {
    let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty() || !name.chars().all(letters) {
        let message = format!("`{name}` can't name a sandbox: use lower-case letters, digits and `-`");
        return Err(source.problem(Some(name_span.clone()), message));
    }
    let span = definition.span();
    let DeValue::Table(mut options) = definition.into_inner() else {
        return Err(source.problem(Some(span), format!("`{name}` has to be a table: write [sandbox.{name}]")));
    };
    let Some((_, kind)) = options.remove_entry("kind") else {
        let message = format!("`{name}` has no `kind`; `sandscope sandboxes` lists the kinds");
        return Err(source.problem(Some(name_span.clone()), message));
    };
    let kind_span = kind.span();
    let kind =
        String::deserialize(ValueDeserializer::from(kind)).map_err(|error| source.refused(&error, &kind_span))?;
    let known = sandbox::KINDS.iter().map(|kind| kind.name);
    let Some(kind) = sandbox::KINDS.iter().find(|known| known.name == kind) else {
        let message = format!(
            "there is no kind `{kind}`{} The kinds are: {}",
            suggestion(&kind, known.clone()),
            known.collect::<Vec<_>>().join(", ")
        );
        return Err(source.problem(Some(kind_span), message));
    };
    let options = ValueDeserializer::from(Spanned::new(span.clone(), DeValue::Table(options)));
    let inner = (kind.define)(options).map_err(|error| source.refused(&error, &span))?;
    Ok(Box::new(Named { name: name.to_owned(), inner }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Vec<String>, String> {
        let source = Source { file: Path::new("x.toml"), text };
        match parse(&source) {
            Ok(sandboxes) => Ok(sandboxes.iter().map(|sandbox| sandbox.name().to_owned()).collect()),
            Err(problem) => Err(problem.to_string()),
        }
    }

    #[test]
    fn sandboxes_are_defined_by_kind_and_options() {
        let text = "[sandbox.traced]\nkind = \"gvisor\"\nplatform = \"ptrace\"\n[sandbox.exits]\nkind = \"kvm-floor\"\npio = 7\n";
        assert_eq!(parsed(text).unwrap(), ["exits", "traced"]);
        assert_eq!(parsed("").unwrap(), Vec::<String>::new());
    }

    #[test]
    fn what_is_wrong_has_its_line_its_reason_and_what_is_near() {
        let cases = [
            ("[sandbox.a]\nkind = \"kvm-flor\"", "x.toml:2:8: there is no kind `kvm-flor`; did you mean `kvm-floor`?"),
            ("[sandbox.a]\nkind = \"kvm-floor\"\npoi = 3", "x.toml:3:1: unknown field `poi`"),
            ("[sandbox.a]\nkind = \"kvm-floor\"\npoi = 3", "did you mean `pio`?"),
            ("[sandbox.a]\nkind = \"kvm-floor\"\npio = -3", "x.toml:3:7: "),
            ("[sandbox.a]\nkind = \"runc\"\npio = 3", "x.toml:3:1: unknown field `pio`"),
            ("[sandbox.a]\nkind = \"gvisor\"\nplatform = \"kvmm\"", "x.toml:3:12: unknown variant `kvmm`"),
            ("[sandbox.a]\nplatform = \"kvm\"", "x.toml:1:10: `a` has no `kind`"),
            ("[sandbox.\"A b\"]\nkind = \"runc\"", "`A b` can't name a sandbox"),
            ("[sandbx.a]\nkind = \"runc\"", "unknown table `sandbx`; did you mean `sandbox`?"),
            ("sandbox = 3", "x.toml:1:11: `sandbox` has to be a table"),
            ("[sandbox.a]\nkind = 3", "x.toml:2:8: invalid type: integer `3`, expected a string"),
            ("[sandbox.a\n", "x.toml:1:"),
        ];
        for (text, expected) in cases {
            let problem = parsed(text).unwrap_err();
            assert!(problem.contains(expected), "{text:?}: {problem}");
        }
        let problem = sandboxes(Path::new("/nowhere/x.toml")).err().unwrap().to_string();
        assert!(problem.contains("/nowhere/x.toml: can't be read"), "{problem}");
    }
}
