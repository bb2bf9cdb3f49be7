//! A trace as one page that needs nothing else, in the look of `moec explain --html`.

use maud::{Markup, html};
use serde_json::Value;

use super::{Route, Traced, figures::Figures};
use crate::page;

const STYLE: &str = include_str!("page.css");

/// Beyond these the page would be more than a browser likes; the data beside it has everything.
const SHOWN_POSITIONS: usize = 2048;
const SHOWN_MAPS: usize = 48;
/// A drawing of pairs is legible up to here.
const DRAWN_EXPERTS: usize = 128;

pub fn page(title: &str, trace: &Traced, figures: &[Figures], data: &Value) -> String {
    let sections = html! {
        (facts(trace, figures))
        (loads(trace, figures))
        (table(trace, figures))
        (maps(trace))
        (pairs(trace, figures))
    };
    page::whole(title, "moec trace", STYLE, &sections, data)
}

fn name(number: usize, route: &Route) -> String {
    match route.place {
        Some((text, rank)) => format!("{number} (route {text}, layer {rank} of its kind)"),
        None => number.to_string(),
    }
}

fn facts(trace: &Traced, figures: &[Figures]) -> Markup {
    let choices: usize = trace.routes.iter().map(|route| route.indices.len()).sum();
    let sum = |of: fn(&Figures) -> usize| figures.iter().map(of).sum::<usize>();
    let positions = trace.routes.iter().map(Route::positions).max().unwrap_or(0);
    let fact = |what: &str, value: usize| html! { div { dt { (what) } dd { (value) } } };
    html! {
        dl.facts {
            (fact("routes run", trace.routes.len()))
            (fact("positions", positions))
            (fact("choices", choices))
            (fact("dead experts", sum(|figures| figures.dead.len())))
            (fact("dropped", sum(|figures| figures.dropped as usize)))
        }
    }
}

/// A row of cells for each route, one for each expert.
fn loads(trace: &Traced, figures: &[Figures]) -> Markup {
    html! {
        section {
            h2 { "Load of each expert" }
            @for (number, (route, figures)) in trace.routes.iter().zip(figures).enumerate() {
                @let most = figures.load.iter().copied().max().unwrap_or(0).max(1);
                div.loads {
                    code.dim { (number) }
                    div.cells style=(format!("grid-template-columns:repeat({},1fr)", route.experts.max(1))) {
                        @for (expert, load) in figures.load.iter().enumerate() {
                            i.dead[*load == 0] title=(format!("expert {expert}: {load} choices, weight {:.2}", figures.weight[expert]))
                                style=(format!("--share:{:.0}%", *load as f64 / most as f64 * 100.0)) {}
                        }
                    }
                }
            }
            p.dim { "A row for each route in the order in which they are run, a cell for each expert from 0 on. Darker: chosen more often, within its row; struck out: never." }
        }
    }
}

fn table(trace: &Traced, figures: &[Figures]) -> Markup {
    let list = |dead: &[usize]| match dead {
        [] => "none".to_owned(),
        dead if dead.len() > 12 => format!("{} of them", dead.len()),
        dead => dead.iter().map(usize::to_string).collect::<Vec<_>>().join(", "),
    };
    html! {
        section {
            h2 { "Balance" }
            table {
                tr { th { "route" } th.number { "positions" } th.number { "choices" } th.number { "experts" } th.number { "entropy" } th.number { "at most" } th.number { "largest / mean" } th { "dead" } th.number { "dropped" } }
                @for (number, (route, figures)) in trace.routes.iter().zip(figures).enumerate() {
                    tr {
                        td { (name(number, route)) }
                        td.number { (route.positions()) }
                        td.number { (route.choices) }
                        td.number { (route.experts) }
                        td.number { (format!("{:.2} bit", figures.entropy_bits)) }
                        td.number { (format!("{:.2} bit", (route.experts.max(1) as f64).log2())) }
                        td.number { (format!("{:.2}", figures.imbalance)) }
                        td { span.warn[!figures.dead.is_empty()] { (list(&figures.dead)) } }
                        td.number { span.warn[figures.dropped > 0] { (figures.dropped) } }
                    }
                }
            }
        }
    }
}

/// The positions in order, each coloured by the expert with the largest weight.
fn maps(trace: &Traced) -> Markup {
    html! {
        section {
            h2 { "Tokens to experts" }
            @for (number, route) in trace.routes.iter().enumerate().take(SHOWN_MAPS) {
                details open[number == 0] {
                    summary { "route " (name(number, route)) }
                    p.tokens {
                        @for position in 0..route.positions().min(SHOWN_POSITIONS) { (token(trace, route, position)) }
                    }
                }
            }
            p.dim { "The colour is that of the expert with the largest weight; the pointer over a token shows all of them." }
        }
    }
}

fn token(trace: &Traced, route: &Route, position: usize) -> Markup {
    let chosen: Vec<(Option<usize>, f32)> = route.chosen(position).collect();
    let best = chosen.iter().filter_map(|(expert, weight)| Some(((*expert)?, *weight)));
    let best = best.reduce(|best, next| if next.1 > best.1 { next } else { best });
    let words = chosen.iter().map(|(expert, weight)| match expert {
        Some(expert) => format!("{expert} ({weight:.2})"),
        None => "none".to_owned(),
    });
    let title = format!("position {position}: {}", words.collect::<Vec<_>>().join(", "));
    // Of another sequence than the text, as an encoder's are, nothing is known.
    let piece = trace.pieces.get(position).filter(|_| trace.pieces.len() == route.positions());
    let shown = match (piece, best) {
        (Some(piece), _) => piece.replace('\n', "↵"),
        (None, Some((expert, _))) => expert.to_string(),
        (None, None) => "–".to_owned(),
    };
    html! {
        @match best {
            Some((expert, _)) => span style=(format!("--hue:{:.0}", hue(expert))) title=(title) { (shown) },
            None => span.none title=(title) { (shown) },
        }
        @if piece.is_some_and(|piece| piece.contains('\n')) { br; }
    }
}

/// Neighbours in number are far from one another: the golden angle.
fn hue(expert: usize) -> f64 {
    (expert as f64 * 137.507_764) % 360.0
}

/// How often two experts were chosen together.
fn pairs(trace: &Traced, figures: &[Figures]) -> Markup {
    let drawn = |(_, (route, figures)): &(usize, (&Route, &Figures))| {
        !figures.together.is_empty() && route.experts <= DRAWN_EXPERTS
    };
    let shown: Vec<_> = trace.routes.iter().zip(figures).enumerate().filter(drawn).take(SHOWN_MAPS).collect();
    html! {
        @if !shown.is_empty() {
            section {
                h2 { "Chosen together" }
                div.pairs {
                    @for (number, (route, figures)) in shown {
                        figure {
                            (squares(route.experts, figures))
                            figcaption.dim { "route " (number) }
                        }
                    }
                }
                p.dim { "Row and column are experts from 0 on; darker: chosen for the same position more often." }
            }
        }
    }
}

fn squares(experts: usize, figures: &Figures) -> Markup {
    let most = figures.together.values().copied().max().unwrap_or(1).max(1);
    html! {
        svg viewBox=(format!("0 0 {experts} {experts}")) role="img" {
            rect.field width=(experts) height=(experts) {}
            @for ((low, high), count) in &figures.together {
                @for (x, y) in [(low, high), (high, low)] {
                    rect.pair x=(x) y=(y) width="1" height="1" opacity=(format!("{:.2}", *count as f64 / most as f64)) {
                        title { (low) " and " (high) ": " (count) }
                    }
                }
            }
        }
    }
}
