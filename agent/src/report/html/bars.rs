//! A bar whose parts have their shares of a whole, with a legend.

use crate::report::units::{duration, percent};
use maud::{Markup, html};

/// Colours that people who see colours differently can tell apart (Okabe and Ito 2008); `style.css` has them as `k0` to `k7`.
const COLOURS: usize = 8;

/// Share below which a part has no room for its name.
const NAMED: f64 = 0.09;

/// A part of a whole.
pub(super) struct Part {
    pub(super) name: String,
    pub(super) time_ns: f64,
}

/// Gives each name a colour of its own, the same in all bars of a page, as long as there are enough.
#[derive(Default)]
pub(super) struct Colours(Vec<String>);

impl Colours {
    fn class(&mut self, name: &str) -> String {
        let known = self.0.iter().position(|known| known == name);
        let index = known.unwrap_or_else(|| {
            self.0.push(name.to_owned());
            self.0.len() - 1
        });
        format!("k{}", index % COLOURS)
    }
}

/// A bar and its legend.
pub(super) fn stacked(label: &str, parts: &[Part], colours: &mut Colours) -> Markup {
    let whole: f64 = parts.iter().map(|part| part.time_ns).sum();
    let shares: Vec<_> = parts
        .iter()
        .filter(|part| part.time_ns > 0.0)
        .map(|part| (part, part.time_ns / whole, colours.class(&part.name)))
        .collect();
    html! {
        div.bar role="img" aria-label=(label) {
            @for (part, share, class) in &shares {
                span class={ (class) @if *share < NAMED { " thin" } } style={ "width:" (format!("{:.3}", share * 100.0)) "%" }
                    title={ (part.name) " " (duration(part.time_ns)) ", " (percent(*share)) } {
                    @if *share >= NAMED { (part.name) }
                }
            }
        }
        ul.legend {
            @for (part, share, class) in &shares {
                li { i class=(class) {} (part.name) " " span.quiet { (duration(part.time_ns)) " (" (percent(*share)) ")" } }
            }
        }
    }
}
