//! The part of `moec explain` that says how long a pass takes: predicted, and with `--check` measured.

use maud::{Markup, html};
use moec_codegen::Instances;
use moec_diag::SourceMap;
use moec_ir::Module;
use moec_plan::Plan;
use moec_program::products::Size;
use serde_json::{Value, json};

use super::short;
use crate::{
    cost::Pass,
    failure::Failure,
    roof::{self, Line, Machine, Measured, Place, Rates},
};

pub struct Roof {
    size: Size,
    machine: Machine,
    rates: Rates,
    lines: Vec<Line>,
    check: Option<Check>,
}

struct Check {
    level: String,
    /// Of each line.
    seconds: Vec<f64>,
    median_error: f64,
}

impl Roof {
    pub fn assumed(plan: &Plan, pass: Pass) -> Roof {
        let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get());
        let size = size(plan, pass);
        let machine = Machine::assumed(threads);
        let rates = Rates::assumed(&machine);
        let lines = roof::predict(plan, size, &machine, &rates, None);
        Roof { size, machine, rates, lines, check: None }
    }

    pub fn measured(
        module: &Module,
        plan: &Plan,
        passes: &[Pass],
        weights: Option<&dyn Instances>,
        sources: &SourceMap,
    ) -> Result<Vec<Roof>, Failure> {
        let sizes: Vec<Size> = passes.iter().map(|pass| size(plan, *pass)).collect();
        let measured = roof::measure(module, plan, &sizes, weights, sources)?;
        let one = |(size, measured): (Size, Measured)| {
            let median_error = measured.median_error();
            let (lines, seconds) = measured.lines.into_iter().unzip();
            let check = Check { level: measured.level, seconds, median_error };
            Roof { size, machine: measured.machine, rates: measured.rates, lines, check: Some(check) }
        };
        Ok(sizes.into_iter().zip(measured).map(one).collect())
    }

    fn sums(&self) -> (f64, f64, Option<f64>) {
        let sum = |of: fn(&Line) -> f64| self.lines.iter().map(of).sum();
        let measured = self.check.as_ref().map(|check| check.seconds.iter().sum());
        (sum(|line| line.roof_seconds), sum(|line| line.seconds), measured)
    }

    /// Seconds that were measured for a line.
    fn seconds(&self, at: usize) -> Option<f64> {
        self.check.as_ref().map(|check| check.seconds[at])
    }

    fn head(&self) -> String {
        let Machine { threads, read, f32, bf16, int8, measured } = self.machine;
        let how = if measured { "measured just now" } else { "assumed; `--check` measures" };
        let [f32, bf16, int8] = [f32, bf16, int8].map(|rate| short(rate, "FLOP/s"));
        let (read, barrier) = (short(read, "B/s"), time(self.rates.barrier));
        format!("{threads} threads, reads {read}, f32 {f32}, bf16 {bf16}, int8 {int8}, a barrier {barrier} ({how})")
    }

    pub fn text(&self, lines: &mut Vec<String>) {
        lines.push(String::new());
        lines.push(format!("roof         {}", self.head()));
        lines.push(format!("  a pass of {} after {}", self.size.tokens, self.size.past));
        let measured = if self.check.is_some() { "  measured  pred/meas  of roof" } else { "" };
        lines.push(format!(
            "  {:<14} {:<13} {:>5} {:>10} {:>12}  {:<8} {:>10} {:>10}{measured}",
            "where", "steps", "runs", "bytes", "operations", "bound", "roof", "predicted"
        ));
        for (at, line) in self.lines.iter().enumerate() {
            let (bytes, flops) = (short(line.bytes, "B"), short(line.flops, "FLOP"));
            let [roof, predicted] = [line.roof_seconds, line.seconds].map(time);
            lines.push(format!(
                "  {:<14} {:<13} {:>5} {bytes:>10} {flops:>12}  {:<8} {roof:>10} {predicted:>10}{}",
                place(line.place),
                line.step,
                line.executions,
                line.bound.name(),
                compared(line.seconds, line.roof_seconds, self.seconds(at))
            ));
        }
        let (roof, predicted, measured) = self.sums();
        let compared = compared(predicted, roof, measured);
        lines.push(format!("  {:<69} {:>10} {:>10}{compared}", "the pass", time(roof), time(predicted)));
        if let Some(check) = &self.check {
            lines.push(format!(
                "  level {}; median error {:.0} % over the lines of at least 2 % of the pass",
                check.level,
                check.median_error * 100.0
            ));
        }
    }

    pub fn json(&self) -> Value {
        let Machine { threads, read, f32, bf16, int8, measured } = self.machine;
        let (roof, predicted, seconds) = self.sums();
        let line = |(at, line): (usize, &Line)| {
            json!({
                "where": place(line.place),
                "steps": line.step,
                "executions": line.executions,
                "bytes": line.bytes,
                "flops": line.flops,
                "bound": line.bound.name(),
                "roof_seconds": line.roof_seconds,
                "predicted_seconds": line.seconds,
                "measured_seconds": self.seconds(at),
            })
        };
        json!({
            "machine": {
                "measured": measured,
                "threads": threads,
                "read_bytes_per_second": read,
                "f32_flops": f32,
                "bf16_flops": bf16,
                "int8_flops": int8,
                "barrier_seconds": self.rates.barrier,
                "operation_seconds": self.rates.operation,
                "moved_byte_seconds": self.rates.moved,
                "choice_seconds": self.rates.choice,
                "key_read_seconds": self.rates.key_read,
                "key_multiplied_seconds": self.rates.key_multiplied,
            },
            "tokens": self.size.tokens,
            "past": self.size.past,
            "outputs": self.size.outputs,
            "level": self.check.as_ref().map(|check| check.level.as_str()),
            "lines": self.lines.iter().enumerate().map(line).collect::<Vec<_>>(),
            "roof_seconds": roof,
            "predicted_seconds": predicted,
            "measured_seconds": seconds,
            "median_error": self.check.as_ref().map(|check| check.median_error),
        })
    }

    pub fn markup(&self) -> Markup {
        let (roof, predicted, measured) = self.sums();
        let ratio = |predicted: f64, measured: f64| format!("{:.2}", predicted / measured);
        html! {
            section {
                h2 { "Roof" }
                table {
                    tr {
                        th { "where" } th { "steps" } th.number { "runs" } th.number { "bytes" } th.number { "operations" }
                        th { "bound by" } th.number { "roof" } th.number { "predicted" }
                        @if measured.is_some() { th.number { "measured" } th.number { "predicted / measured" } }
                    }
                    @for (at, line) in self.lines.iter().enumerate() {
                        tr {
                            td { (place(line.place)) }
                            td { (line.step) }
                            td.number { (line.executions) }
                            td.number { (short(line.bytes, "B")) }
                            td.number { (short(line.flops, "FLOP")) }
                            td { (line.bound.name()) }
                            td.number { (time(line.roof_seconds)) }
                            td.number { (time(line.seconds)) }
                            @if let Some(seconds) = self.seconds(at) {
                                td.number { (time(seconds)) } td.number { (ratio(line.seconds, seconds)) }
                            }
                        }
                    }
                    tr {
                        td { "the pass" } td {} td {} td {} td {} td {}
                        td.number { (time(roof)) } td.number { (time(predicted)) }
                        @if let Some(seconds) = measured {
                            td.number { (time(seconds)) } td.number { (ratio(predicted, seconds)) }
                        }
                    }
                }
                p.dim { "A pass of " (self.size.tokens) " after " (self.size.past) ": " (self.head()) "." }
            }
        }
    }
}

fn size(plan: &Plan, pass: Pass) -> Size {
    Size { tokens: pass.tokens, past: pass.past, outputs: roof::outputs(plan, pass.tokens) }
}

fn place(place: Place) -> String {
    match place {
        Place::Kind(kind) => format!("layer kind {kind}"),
        Place::Outside => "outside layers".into(),
    }
}

fn compared(predicted: f64, roof: f64, measured: Option<f64>) -> String {
    let told = |seconds: f64| format!(" {:>10} {:>10.2} {:>8.2}", time(seconds), predicted / seconds, roof / seconds);
    measured.map_or_else(String::new, told)
}

/// `1.23 ms`.
fn time(seconds: f64) -> String {
    match seconds {
        seconds if seconds < 1e-3 => format!("{:.1} us", seconds * 1e6),
        seconds if seconds < 1.0 => format!("{:.2} ms", seconds * 1e3),
        seconds => format!("{seconds:.2} s"),
    }
}
