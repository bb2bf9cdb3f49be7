//! Reading an array in another order: permuted, sliced or repeated.

/// One level of a walk through an array: how often, and how far each time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    pub count: usize,
    pub stride: usize,
}

/// The distance between neighbours along each axis of a dense array, slowest axis first.
pub(crate) fn strides(sizes: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; sizes.len()];
    for at in (1..sizes.len()).rev() {
        strides[at - 1] = strides[at] * sizes[at];
    }
    strides
}

/// Calls `f` with the offset of each innermost run, in order.
fn for_each_run(start: usize, outer: &[Step], mut f: impl FnMut(usize)) {
    if outer.iter().any(|step| step.count == 0) {
        return;
    }
    let mut at = vec![0; outer.len()];
    let mut offset = start;
    loop {
        f(offset);
        let mut level = outer.len();
        loop {
            if level == 0 {
                return;
            }
            level -= 1;
            at[level] += 1;
            offset += outer[level].stride;
            if at[level] < outer[level].count {
                break;
            }
            offset -= outer[level].stride * outer[level].count;
            at[level] = 0;
        }
    }
}

/// The elements that a walk meets.
pub(crate) fn read<T: Copy>(data: &[T], start: usize, walk: &[Step]) -> Vec<T> {
    let Some((inner, outer)) = walk.split_last() else { return vec![data[start]] };
    let mut out = Vec::with_capacity(walk.iter().map(|step| step.count).product());
    if inner.count == 0 {
        return out;
    }
    for_each_run(start, outer, |offset| match inner.stride {
        1 => out.extend_from_slice(&data[offset..offset + inner.count]),
        0 => out.resize(out.len() + inner.count, data[offset]),
        stride => out.extend((0..inner.count).map(|n| data[offset + n * stride])),
    });
    out
}

/// The offsets that a walk meets.
pub(crate) fn offsets(walk: &[Step]) -> Vec<usize> {
    let mut out = Vec::new();
    for_each_run(0, walk, |offset| out.push(offset));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(count: usize, stride: usize) -> Step {
        Step { count, stride }
    }

    #[test]
    fn a_walk_permutes_slices_and_repeats() {
        let data = [0, 1, 2, 3, 4, 5]; // [2, 3]
        assert_eq!(read(&data, 0, &[step(3, 1), step(2, 3)]), [0, 3, 1, 4, 2, 5]);
        assert_eq!(read(&data, 1, &[step(2, 3), step(2, 1)]), [1, 2, 4, 5]);
        assert_eq!(read(&data, 0, &[step(2, 1), step(2, 0)]), [0, 0, 1, 1]);
        assert_eq!(read(&data, 5, &[]), [5]);
        assert!(read(&data, 0, &[step(0, 3), step(3, 1)]).is_empty());
        assert!(read(&data, 0, &[step(2, 3), step(0, 1)]).is_empty());
        assert_eq!(offsets(&[step(2, 3), step(2, 0)]), [0, 0, 3, 3]);
        assert_eq!(offsets(&[]), [0]);
    }
}
