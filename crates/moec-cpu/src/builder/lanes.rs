//! Lanes: splats, parts, and reductions across them.

use melior::ir::attribute::DenseI64ArrayAttribute;

use super::{Builder, Ty, Val};

impl<'c> Builder<'c> {
    /// A scalar in each of so many lanes; a vector of them stays as it is.
    pub fn splat(&self, a: Val, lanes: u32) -> Val {
        if a.ty.lanes == lanes {
            return a;
        }
        assert_eq!(a.ty.lanes, 0);
        self.op1("vector.broadcast", &[a], Ty::vector(a.ty.elem, lanes), &[])
    }

    pub fn lane(&self, a: Val, lane: u32) -> Val {
        if a.ty.lanes == 0 {
            return a;
        }
        let position = DenseI64ArrayAttribute::new(self.context, &[i64::from(lane)]).into();
        self.op1("vector.extract", &[a], Ty::scalar(a.ty.elem), &[("static_position", position)])
    }

    /// A vector of scalars.
    pub fn gather(&self, lanes: &[Val]) -> Val {
        self.op1("vector.from_elements", lanes, Ty::vector(lanes[0].ty.elem, lanes.len() as u32), &[])
    }

    /// Lanes `first .. first + count`.
    pub fn part(&self, a: Val, first: u32, count: u32) -> Val {
        let mask: Vec<i64> = (i64::from(first)..i64::from(first + count)).collect();
        let mask = DenseI64ArrayAttribute::new(self.context, &mask).into();
        self.op1("vector.shuffle", &[a, a], Ty::vector(a.ty.elem, count), &[("mask", mask)])
    }

    /// Vectors of equal length (a power of two of them), one after the other.
    pub fn join(&self, parts: &[Val]) -> Val {
        if let [whole] = parts {
            return *whole;
        }
        let (first, second) = parts.split_at(parts.len() / 2);
        let (first, second) = (self.join(first), self.join(second));
        let lanes = first.ty.lanes * 2;
        let mask = DenseI64ArrayAttribute::new(self.context, &(0..i64::from(lanes)).collect::<Vec<_>>()).into();
        self.op1("vector.shuffle", &[first, second], Ty::vector(first.ty.elem, lanes), &[("mask", mask)])
    }

    /// The same bits as lanes of another size.
    pub fn recast(&self, a: Val, ty: Ty) -> Val {
        self.op1("vector.bitcast", &[a], ty, &[])
    }

    /// All lanes (a power of two) brought to one value by `f`, halves against halves: a fixed order.
    pub fn across(&self, mut a: Val, f: impl Fn(&Builder<'c>, Val, Val) -> Val) -> Val {
        while a.ty.lanes > 1 {
            let half = a.ty.lanes / 2;
            a = f(self, self.part(a, 0, half), self.part(a, half, half));
        }
        self.lane(a, 0)
    }
}
