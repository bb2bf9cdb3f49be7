//! A bank of experts applied to the rows of a route.

use moec_types::{Axis, DType, TensorType};

use super::{OpDef, Reach, TypeError, dispatch, operands};
use crate::{Module, RegionId, ValueId, ValueType, ParseError, parse, reader::Reader};

/// `experts %rows, %route {slots Slot, input packed, output per_slot, bank (0..8)}` and a region for each member.
///
/// *Types.*   rows (`Packed`: the result of a dispatch; `FromTokens`: x itself, gathered on the way in), and the route. Each
///            member's region takes `f32[Slot=slots(S, K), D]` and gives `f32[Slot, ..]` of one type for all members.
///            -> `PerSlot`: that type; `WeighedPerChoice`: `f32[S, K, ..]`.
/// *Meaning.* Expert `e` of the route is an instance of the member whose range `first .. first + count` holds `e`; each row is
///            what its expert makes of it. `WeighedPerChoice` puts each row, times its weight, at its position and
///            choice (zero where nothing was chosen); its sum over K is what `combine` gives.
#[derive(Clone, Debug, PartialEq)]
pub struct Experts {
    pub bank: Vec<Member>,
    /// The axis of the rows within the members' regions.
    pub slots: Axis,
    pub input: ExpertsInput,
    pub output: ExpertsOutput,
}

/// `count` experts of one type.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    pub region: RegionId,
    pub first: u32,
    pub count: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpertsInput {
    Packed,
    FromTokens,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpertsOutput {
    PerSlot,
    WeighedPerChoice,
}

impl ExpertsInput {
    pub const ALL: [ExpertsInput; 2] = [ExpertsInput::Packed, ExpertsInput::FromTokens];

    pub fn name(self) -> &'static str {
        match self {
            ExpertsInput::Packed => "packed",
            ExpertsInput::FromTokens => "from_tokens",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|input| input.name() == name)
    }
}

impl ExpertsOutput {
    pub const ALL: [ExpertsOutput; 2] = [ExpertsOutput::PerSlot, ExpertsOutput::WeighedPerChoice];

    pub fn name(self) -> &'static str {
        match self {
            ExpertsOutput::PerSlot => "per_slot",
            ExpertsOutput::WeighedPerChoice => "weighed_per_choice",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|output| output.name() == name)
    }
}

impl OpDef for Experts {
    const MNEMONIC: &'static str = "experts";
    const REACH: Reach = Reach::Across;

    fn regions(&self) -> Vec<RegionId> {
        self.bank.iter().map(|member| member.region).collect()
    }

    fn regions_mut(&mut self) -> Vec<&mut RegionId> {
        self.bank.iter_mut().map(|member| &mut member.region).collect()
    }

    fn attributes(&self, _: &Module) -> String {
        let range = |member: &Member| format!("{}..{}", member.first, u64::from(member.first) + u64::from(member.count));
        let bank: Vec<_> = self.bank.iter().map(range).collect();
        let (input, output) = (self.input.name(), self.output.name());
        format!("slots {}, input {input}, output {output}, bank ({})", self.slots, bank.join(", "))
    }

    fn read(text: &mut Reader) -> Result<Self, ParseError> {
        text.expect_word("slots")?;
        let slots = text.axis()?;
        text.expect(",")?;
        text.expect_word("input")?;
        let input = text.one_of("`packed` or `from_tokens`", ExpertsInput::from_name)?;
        text.expect(",")?;
        text.expect_word("output")?;
        let output = text.one_of("`per_slot` or `weighed_per_choice`", ExpertsOutput::from_name)?;
        text.expect(",")?;
        text.expect_word("bank")?;
        let member = |text: &mut Reader| {
            let (first, count) = parse::range(text)?;
            Ok(Member { region: RegionId::NONE, first, count })
        };
        Ok(Experts { bank: text.list("(", ")", member)?, slots, input, output })
    }

    fn infer(&self, module: &Module, operands: &[ValueId]) -> Result<Vec<ValueType>, TypeError> {
        let [_, _] = operands::exactly(Self::MNEMONIC, operands)?;
        let (rows, route) = (operands::tensor(module, operands, 0)?, operands::route(module, operands, 1)?);
        let slot = dispatch::slots(route, &self.slots)?;
        let takes = match self.input {
            ExpertsInput::Packed => rows.clone(),
            ExpertsInput::FromTokens => dispatch::packed(rows, route, &self.slots)?,
        };
        let found = operands::axis(&takes, &self.slots, 0)?;
        if *found != slot {
            return Err(operands::disagreement((found, 0), (&slot, 1)));
        }
        self.covers(route.experts)?;
        let mut gives: Option<&TensorType> = None;
        for (number, member) in self.bank.iter().enumerate() {
            let result = self.member(module, number, member, &takes)?;
            if result.dtype != DType::F32 || result.dim(&self.slots) != Some(&slot) {
                return Err(TypeError::new(format!("member {number} of the bank gives {result}, not rows of `{slot}`"))
                    .label(0, format!("this is {rows}")));
            }
            if let Some(first) = gives.filter(|first| *first != result) {
                return Err(TypeError::new(format!("the bank's members give {first} and {result}"))
                    .help("all experts of a bank must give the same type"));
            }
            gives = Some(result);
        }
        let Some(gives) = gives else { return Err(TypeError::new("a bank without experts")) };
        let result = match self.output {
            ExpertsOutput::PerSlot => gives.clone(),
            ExpertsOutput::WeighedPerChoice => {
                operands::absent(gives, &route.tokens.axis, 0)?;
                operands::absent(gives, &route.choices.axis, 0)?;
                let rest = gives.dims.iter().filter(|dim| dim.axis != self.slots);
                let dims = [&route.tokens, &route.choices].into_iter().chain(rest).cloned().collect();
                TensorType::new(DType::F32, dims)
            }
        };
        Ok(vec![result.into()])
    }
}

impl Experts {
    /// The members' ranges follow each other and hold every expert of the route.
    fn covers(&self, experts: u64) -> Result<(), TypeError> {
        let mut next = 0u64;
        for (number, member) in self.bank.iter().enumerate() {
            if u64::from(member.first) != next {
                let first = member.first;
                return Err(TypeError::new(format!("member {number} of the bank starts at expert {first}, not {next}")));
            }
            next += u64::from(member.count);
        }
        if next != experts {
            return Err(TypeError::new(format!("the gate chooses among {experts} experts, the bank holds {next}"))
                .label(1, format!("chooses among {experts}"))
                .help(format!("let the bank hold {experts}, or let the gate choose among {next}")));
        }
        Ok(())
    }

    /// What a member's region gives, when it takes `takes`.
    fn member<'m>(
        &self,
        module: &'m Module,
        number: usize,
        member: &Member,
        takes: &TensorType,
    ) -> Result<&'m TensorType, TypeError> {
        let region = module.region(member.region);
        let ([arg], [result]) = (&region.args[..], &region.results[..]) else {
            let (args, results) = (region.args.len(), region.results.len());
            return Err(TypeError::new(format!(
                "a member of a bank takes one value and gives one; number {number} takes {args} and gives {results}"
            )));
        };
        let arg = module.ty(*arg);
        if arg.tensor() != Some(takes) {
            return Err(TypeError::new(format!("member {number} of the bank takes {arg}, the rows are {takes}"))
                .label(0, format!("the rows are {takes}")));
        }
        let result = module.ty(*result);
        result.tensor().ok_or_else(|| TypeError::new(format!("member {number} of the bank gives {result}")))
    }
}
