//! Control: loops and branches that carry values, calls.

use melior::ir::{
    Block, Region, RegionLike,
    attribute::{DenseI32ArrayAttribute, FlatSymbolRefAttribute},
    block::BlockLike,
};

use super::{Builder, I64, Ty, Val, arguments, types};

impl<'c> Builder<'c> {
    fn nested(&self, inputs: &[Ty], body: impl FnOnce(&Builder<'c>, &[Val])) -> Region<'c> {
        let types = types(self.context, inputs);
        let block = Block::new(&types.iter().map(|ty| (*ty, self.location)).collect::<Vec<_>>());
        let values = arguments(&block, inputs);
        let region = Region::new();
        let block = region.append_block(block);
        body(&Builder { block: block.to_raw(), ..*self }, &values);
        region
    }

    /// `for iv in (lower..upper).step_by(step)` over i64, carrying values; `body` gives the next ones.
    pub fn for_loop(
        &self,
        [lower, upper, step]: [Val; 3],
        initial: &[Val],
        body: impl FnOnce(&Builder<'c>, Val, &[Val]) -> Vec<Val>,
    ) -> Vec<Val> {
        let carried: Vec<Ty> = initial.iter().map(|val| val.ty).collect();
        let inputs: Vec<Ty> = std::iter::once(I64).chain(carried.iter().copied()).collect();
        let region = self.nested(&inputs, |b, values| {
            let next = body(b, values[0], &values[1..]);
            b.op("scf.yield", &next, &[], &[]);
        });
        let operands: Vec<Val> = [lower, upper, step].into_iter().chain(initial.iter().copied()).collect();
        self.append(self.build("scf.for", &operands, &carried, &[], vec![region]), &carried)
    }

    /// `for iv in 0..count`.
    pub fn repeat(&self, count: Val, body: impl FnOnce(&Builder<'c>, Val)) {
        let [zero, one] = [self.i64(0), self.i64(1)];
        self.range(zero, count, one, body);
    }

    pub fn range(&self, lower: Val, upper: Val, step: Val, body: impl FnOnce(&Builder<'c>, Val)) {
        self.for_loop([lower, upper, step], &[], |b, iv, _| {
            body(b, iv);
            Vec::new()
        });
    }

    pub fn when(&self, condition: Val, body: impl FnOnce(&Builder<'c>)) {
        self.either(
            condition,
            &[],
            |b| {
                body(b);
                Vec::new()
            },
            |_| Vec::new(),
        );
    }

    pub fn either(
        &self,
        condition: Val,
        results: &[Ty],
        yes: impl FnOnce(&Builder<'c>) -> Vec<Val>,
        no: impl FnOnce(&Builder<'c>) -> Vec<Val>,
    ) -> Vec<Val> {
        let yes = self.nested(&[], |b, _| {
            let values = yes(b);
            b.op("scf.yield", &values, &[], &[]);
        });
        let no = self.nested(&[], |b, _| {
            let values = no(b);
            b.op("scf.yield", &values, &[], &[]);
        });
        self.append(self.build("scf.if", &[condition], results, &[], vec![yes, no]), results)
    }

    /// While `condition` holds of the carried values, `body` makes the next ones.
    pub fn while_loop(
        &self,
        initial: &[Val],
        condition: impl FnOnce(&Builder<'c>, &[Val]) -> Val,
        body: impl FnOnce(&Builder<'c>, &[Val]) -> Vec<Val>,
    ) -> Vec<Val> {
        let carried: Vec<Ty> = initial.iter().map(|val| val.ty).collect();
        let before = self.nested(&carried, |b, values| {
            let holds = condition(b, values);
            let operands: Vec<Val> = std::iter::once(holds).chain(values.iter().copied()).collect();
            b.op("scf.condition", &operands, &[], &[]);
        });
        let after = self.nested(&carried, |b, values| {
            let next = body(b, values);
            b.op("scf.yield", &next, &[], &[]);
        });
        self.append(self.build("scf.while", initial, &carried, &[], vec![before, after]), &carried)
    }

    pub fn call(&self, name: &str, operands: &[Val], results: &[Ty]) -> Vec<Val> {
        let callee = FlatSymbolRefAttribute::new(self.context, name).into();
        self.op("func.call", operands, results, &[("callee", callee)])
    }

    /// Calls a C function, without result, through a pointer.
    pub fn call_pointer(&self, function: Val, operands: &[Val]) {
        let all: Vec<Val> = std::iter::once(function).chain(operands.iter().copied()).collect();
        let attributes = [
            ("operandSegmentSizes", DenseI32ArrayAttribute::new(self.context, &[all.len() as i32, 0]).into()),
            ("op_bundle_sizes", DenseI32ArrayAttribute::new(self.context, &[]).into()),
        ];
        self.op("llvm.call", &all, &[], &attributes);
    }
}
