//! `moec explain` as text.

use moec_diag::SourceMap;

use super::{Explained, fusion, kept, place, short, steps};
use crate::{
    cost::Pass,
    count::grouped,
    placement::{self, ranges},
};

impl Explained<'_> {
    pub fn text(&self, sources: &SourceMap) -> String {
        let mut lines = vec![format!("model {}", self.module.name), String::new()];
        lines.push(format!("parameters   {:>18} total", grouped(self.parameters.total)));
        lines.push(format!("             {:>18} active for one token", grouped(self.parameters.active)));
        self.text_of_layers(&mut lines);
        self.text_of_routes(&mut lines, sources);
        self.text_of_cost(&mut lines);
        lines.push(String::new());
        lines.push("fusion".into());
        let fused = fusion::counted(&self.report, sources);
        lines.extend(fused.iter().map(|(told, count)| format!("  {}{}", told.line(), fusion::times(*count))));
        self.text_of_plan(&mut lines);
        for roof in &self.roofs {
            roof.text(&mut lines);
        }
        lines.join("\n") + "\n"
    }

    fn text_of_layers(&self, lines: &mut Vec<String>) {
        for (kind, layers) in self.kinds.iter().enumerate() {
            let count = layers.len();
            let plural = if count == 1 { "" } else { "s" };
            lines.push(format!("layer kind {kind:<2}{count:>18} layer{plural}: {}", ranges(layers)));
        }
        if !self.placement.is_empty() {
            lines.push(String::new());
            lines.push("placement".into());
            lines.extend(placement::lines(&self.placement).into_iter().map(|line| format!("  {line}")));
        }
    }

    fn text_of_routes(&self, lines: &mut Vec<String>, sources: &SourceMap) {
        lines.push(String::new());
        if self.routes.is_empty() {
            lines.push("no routes: nothing is chosen".into());
        }
        for route in &self.routes {
            let times = if route.layers == 1 { String::new() } else { format!(", in {} layers", route.layers) };
            let place = place(sources, route.at);
            lines.push(format!(
                "route        each token chooses {} of {} experts{times} ({place})",
                route.choices, route.experts
            ));
            lines.push(match (route.is_batch_invariant(), route.is_causal()) {
                (true, _) => "             batch-invariant: a token's choice depends on that token alone".into(),
                (false, true) => {
                    "             causal, not batch-invariant: it depends on earlier tokens of the pass".into()
                }
                (false, false) => "             neither causal nor batch-invariant".into(),
            });
            for crossing in &route.crossings {
                let (operation, axis, place) = (crossing.operation, &crossing.axis, self::place(sources, crossing.at));
                lines.push(format!(
                    "             tokens meet in `{operation}` over {axis} ({place}): a choice depends on others"
                ));
            }
        }
    }

    fn text_of_cost(&self, lines: &mut Vec<String>) {
        let Pass { tokens, past } = self.pass();
        let each = |number: f64| number / tokens as f64;
        lines.push(String::new());
        let plural = if tokens == 1 { "token" } else { "tokens" };
        lines.push(format!("a pass of {tokens} {plural} after {past}"));
        lines.push(format!(
            "  operations {:>18} a token ({} in products)",
            short(each(self.cost.flops()), "FLOP"),
            short(each(self.cost.product_flops), "FLOP")
        ));
        let kept = self.storage().join(" and ");
        lines.push(format!("  weights    {:>18} read once a pass, kept as {kept}", short(self.cost.weight_bytes, "B")));
        lines.push(format!("  cache      {:>18} read and written a pass", short(self.cost.cache_bytes, "B")));
        lines.push(format!("  intensity  {:>18.2} FLOP a byte", self.cost.flops() / self.cost.bytes().max(1.0)));
    }

    fn text_of_plan(&self, lines: &mut Vec<String>) {
        lines.push(String::new());
        let plan = match &self.plan {
            Ok(plan) => plan,
            Err(why) => return lines.push(format!("no plan: {why}")),
        };
        let steps: Vec<String> = steps(plan).into_iter().map(|(name, count)| format!("{name} {count}")).collect();
        lines.push(format!("plan         {}", steps.join(", ")));
        let (per_token, fixed) = plan.workspace_bytes();
        lines.push(format!("  packed     {:>18}", short(plan.weight_bytes() as f64, "B")));
        for (format, kept) in kept(plan) {
            let (bytes, bits) = (short(kept.bytes as f64, "B"), kept.bytes as f64 * 8.0 / kept.weights.max(1) as f64);
            let count = grouped(kept.weights);
            lines.push(format!("             {bytes:>18} as {format}: {count} weights, {bits:.2} bits each"));
        }
        lines.push(format!(
            "  workspace  {:>18} for each token of a pass, and {}",
            short(per_token as f64, "B"),
            short(fixed as f64, "B")
        ));
        lines
            .push(format!("  cache      {:>18} for each position", short(plan.cache_bytes_per_position() as f64, "B")));
        if plan.state_bytes() > 0 {
            lines.push(format!("  states     {:>18} of a session", short(plan.state_bytes() as f64, "B")));
        }
    }
}
