//! What pages have in common: each is one file that needs nothing else, with its data inside.

use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde_json::Value;

const STYLE: &str = include_str!("page.css");

/// A page with `sections` below its title, made by the command `by`; `style` comes after what all pages have, and `data` stands in
/// it for programs.
pub fn whole(title: &str, by: &str, style: &str, sections: &Markup, data: &Value) -> String {
    // Within a script element, `<` could end it.
    let data = data.to_string().replace('<', "\\u003c");
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                // Without, browsers ask for one.
                link rel="icon" href="data:,";
                title { (title) " — " (by) }
                style { (PreEscaped(STYLE)) (PreEscaped(style)) }
            }
            body {
                h1 { (title) }
                (sections)
                script type="application/json" id="data" { (PreEscaped(data)) }
            }
        }
    };
    markup.into_string()
}
