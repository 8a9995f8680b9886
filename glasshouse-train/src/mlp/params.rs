use std::ops::Range;

/// Where each layer's weight (`[out, in]`, row-major) and bias lie in one flat buffer: layer by layer, weight first.
///
/// One buffer lets the optimizer run once over everything; this order is also that of the weights digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) layers: Vec<Layer>,
    pub(crate) total: usize,
}

/// One fully connected layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layer {
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    pub(crate) weight: Range<usize>,
    pub(crate) bias: Range<usize>,
}

/// A tensor in the flat buffer.
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) range: Range<usize>,
}

impl Layout {
    /// For widths that [`MlpConfig::validate`](super::MlpConfig::validate) accepted: at most 2^26 values.
    pub(crate) fn new(widths: &[usize]) -> Self {
        let mut start = 0;
        let mut take = |length: usize| {
            let range = start..start + length;
            start = range.end;
            range
        };
        let layers = widths
            .iter()
            .zip(widths.iter().skip(1))
            .map(|(&inputs, &outputs)| Layer { inputs, outputs, weight: take(inputs * outputs), bias: take(outputs) })
            .collect();
        Self { layers, total: start }
    }

    /// Every tensor by its name, in the order of the buffer.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        let entry = |name, shape, range: &Range<usize>| Entry { name, shape, range: range.clone() };
        self.layers
            .iter()
            .enumerate()
            .flat_map(|(i, layer)| {
                [
                    entry(format!("layers.{i}.weight"), vec![layer.outputs, layer.inputs], &layer.weight),
                    entry(format!("layers.{i}.bias"), vec![layer.outputs], &layer.bias),
                ]
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_follow_each_other_without_gaps() {
        let layout = Layout::new(&[3, 4, 2]);
        assert_eq!(layout.total, 3 * 4 + 4 + 4 * 2 + 2);
        let entries = layout.entries();
        let names: Vec<_> = entries.iter().map(|entry| entry.name.as_str()).collect();
        assert_eq!(names, ["layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.1.bias"]);
        let mut end = 0;
        for entry in entries {
            assert_eq!(entry.range.start, end);
            assert_eq!(entry.range.len(), entry.shape.iter().product::<usize>());
            end = entry.range.end;
        }
        assert_eq!(end, layout.total);
    }
}
