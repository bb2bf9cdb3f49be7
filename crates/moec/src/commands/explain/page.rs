//! `moec explain --html`: what a model is and costs, as one page that needs nothing else.

use maud::{Markup, html};
use moec_diag::SourceMap;
use moec_sema::Placement;
use serde_json::Value;

use super::{
    Explained,
    drawing::{self, Drawn, Elements, Stage},
    fusion, place, short, steps,
};
use crate::{
    cost::{self, Pass},
    count::grouped,
    page,
    placement::ranges,
    routes::RouteShape,
};

/// Tokens of the passes whose costs stand beside one another.
const TOKENS: [u64; 6] = [1, 4, 16, 64, 512, 2048];

/// `data` is what `--json` prints; it stands in the page, for programs.
pub fn page(explained: &Explained, placements: &[Placement], data: &Value, sources: &SourceMap) -> String {
    let name = &explained.module.name;
    let sections = html! {
        (facts(explained))
        (architecture(explained, placements))
        (routes(&explained.routes, sources))
        (costs(explained))
        (fused(explained, sources))
        (plan(explained))
        @for roof in &explained.roofs { (roof.markup()) }
    };
    page::whole(name, "moec explain", "", &sections, data)
}

fn facts(explained: &Explained) -> Markup {
    let parameters = explained.parameters;
    let fact = |what: &str, value: String| html! { div { dt { (what) } dd { (value) } } };
    html! {
        dl.facts {
            (fact("parameters", short(parameters.total as f64, "")))
            (fact("met by one token", short(parameters.active as f64, "")))
            (fact("weights kept as", explained.storage().join(", ")))
            @if let Ok(plan) = &explained.plan {
                (fact("packed", short(plan.weight_bytes() as f64, "B")))
                (fact("cache a position", short(plan.cache_bytes_per_position() as f64, "B")))
            }
        }
        p.dim { (grouped(parameters.total)) " parameters, of which one token meets " (grouped(parameters.active)) "." }
    }
}

fn architecture(explained: &Explained, placements: &[Placement]) -> Markup {
    let module = explained.module;
    let whole = explained.parameters.total.max(1);
    let stages = drawing::stages(module, placements);
    let own = drawing::own_parameters(module, placements);
    let port = |name: &str, value| html! { div.port { code { (name) ": " (module.tensor(value).to_string()) } } };
    html! {
        section {
            h2 { "Architecture" }
            (strips(&stages))
            div.flow {
                @for input in &module.inputs { (port(&input.name, input.value)) }
                @if !own.is_empty() {
                    div.stage {
                        @for param in own {
                            div.part {
                                strong { (param.path) }
                                code { (param.ty.to_string()) }
                                (bar(Elements { total: param.elements(), active: param.elements() }, whole))
                            }
                        }
                    }
                }
                @for stage in &stages { (stage_box(stage, whole)) }
                @for output in &module.outputs { (port(&output.name, output.value)) }
            }
            p.dim { "Bars: the share of all parameters; the darker part is what one token meets. Blue: experts are chosen there." }
        }
    }
}

/// Of each stack a cell for each layer, by whether it chooses experts.
fn strips(stages: &[Stage]) -> Markup {
    let mut stacks: Vec<(&str, Vec<(u32, bool)>)> = Vec::new();
    for stage in stages.iter().filter(|stage| !stage.layers.is_empty()) {
        let layers = stage.layers.iter().map(|layer| (*layer, stage.chooses()));
        match stacks.iter_mut().find(|(stack, _)| *stack == stage.stack) {
            Some((_, known)) => known.extend(layers),
            None => stacks.push((&stage.stack, layers.collect())),
        }
    }
    stacks.iter_mut().for_each(|(_, layers)| layers.sort_unstable());
    html! {
        @for (stack, layers) in stacks {
            div.strip {
                code.dim { (stack) }
                @for (layer, moe) in layers { span.moe[moe] { (layer) } }
            }
        }
    }
}

fn stage_box(stage: &Stage, whole: u64) -> Markup {
    let title = match &stage.layers[..] {
        [] => None,
        [layer] => Some(layer.to_string()),
        layers => Some(format!("{}: {} layers", ranges(layers), layers.len())),
    };
    html! {
        div.stage {
            @if let Some(title) = title {
                header {
                    strong { code { (stage.stack) } " " (title) }
                    span.dim { (short(stage.elements.total as f64, "")) " parameters" }
                }
            }
            @for part in &stage.parts { (part_row(part, whole)) }
        }
    }
}

fn part_row(part: &Drawn, whole: u64) -> Markup {
    html! {
        div.part.moe[part.chooses()] {
            strong.inner[part.depth > 0] { (part.name) }
            code { (part.part.to_string()) }
            (bar(part.elements, whole))
        }
    }
}

fn bar(elements: Elements, whole: u64) -> Markup {
    let Elements { total, active } = elements;
    let share = |elements: u64| format!("width:{:.2}%", elements as f64 / whole as f64 * 100.0);
    html! {
        div {
            @if total > 0 {
                span.mono { (short(total as f64, "")) }
                @if active < total { span.dim { ", " (short(active as f64, "")) " met" } }
                div.bar { i style=(share(total)) {} i.active style=(share(active)) {} }
            }
        }
    }
}

fn routes(routes: &[RouteShape], sources: &SourceMap) -> Markup {
    let verdict = |route: &RouteShape| match (route.is_batch_invariant(), route.is_causal()) {
        (true, _) => html! { span.good { "batch-invariant" } },
        (false, true) => html! { span.warn { "causal, not batch-invariant" } },
        (false, false) => html! { span.warn { "neither causal nor batch-invariant" } },
    };
    html! {
        section {
            h2 { "Routes" }
            @if routes.is_empty() { p { "Nothing is chosen." } } @else {
                table {
                    tr { th { "where" } th.number { "layers" } th { "each token chooses" } th { "depends on" } }
                    @for route in routes {
                        tr {
                            td { code { (place(sources, route.at)) } }
                            td.number { (route.layers) }
                            td { (route.choices) " of " (route.experts) " experts" }
                            td {
                                (verdict(route))
                                @for crossing in &route.crossings {
                                    div.dim { "tokens meet in " code { (crossing.operation) } " over " (crossing.axis.name()) " (" (place(sources, crossing.at)) ")" }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn costs(explained: &Explained) -> Markup {
    let past = explained.pass().past;
    let rows = TOKENS.map(|tokens| (tokens, cost::of(explained.module, Pass { tokens, past }, &explained.stored)));
    html! {
        section {
            h2 { "Cost of a pass" }
            table {
                tr { th.number { "tokens" } th.number { "operations" } th.number { "weights read" } th.number { "cache" } th.number { "a token" } th.number { "FLOP a byte" } }
                @for (tokens, cost) in &rows {
                    tr {
                        td.number { (tokens) }
                        td.number { (short(cost.flops(), "FLOP")) }
                        td.number { (short(cost.weight_bytes, "B")) }
                        td.number { (short(cost.cache_bytes, "B")) }
                        td.number { (short(cost.bytes() / *tokens as f64, "B")) }
                        td.number { (format!("{:.2}", cost.flops() / cost.bytes().max(1.0))) }
                    }
                }
            }
            p.dim { "After " (past) " positions. Experts: as many as uniform routing is expected to reach." }
        }
    }
}

fn fused(explained: &Explained, sources: &SourceMap) -> Markup {
    html! {
        section {
            h2 { "Fusion" }
            table {
                tr { th { "pass" } th { "where" } th { "what" } th { "saves" } }
                @for (told, count) in fusion::counted(&explained.report, sources) {
                    tr {
                        td { code { (told.pass) } }
                        td { code { (told.at) } }
                        td { @if told.saves.is_none() { span.warn { "not: " } } (told.what) (fusion::times(count)) }
                        td { @if let Some((bytes, _)) = told.saves { code { (bytes) " bytes" } } }
                    }
                }
            }
        }
    }
}

fn plan(explained: &Explained) -> Markup {
    html! {
        section {
            h2 { "Plan" }
            @match &explained.plan {
                Ok(plan) => {
                    @let (per_token, fixed) = plan.workspace_bytes();
                    table {
                        @for (name, count) in steps(plan) { tr { td { (name) } td.number { (count) } } }
                        tr { td { "workspace for each token of a pass" } td.number { (short(per_token as f64, "B")) } }
                        tr { td { "workspace besides" } td.number { (short(fixed as f64, "B")) } }
                        tr { td { "states of a session" } td.number { (short(plan.state_bytes() as f64, "B")) } }
                    }
                }
                Err(why) => { p.warn { "No plan: " (why) } }
            }
        }
    }
}
