// Filters: each gain is a formula that Python recorded from the band's own code (causal_tune.lab.models) and sends as nested lists,
// ["sub", ["exp", ...], ...], with gains to check the arithmetic here against. Nothing about a single filter is written in this file.
import { range } from "./elements.js";

const single = Math.fround; // torch compares in single precision
const OPERATIONS = {
  add: (a, b) => a + b, sub: (a, b) => a - b, mul: (a, b) => a * b, div: (a, b) => a / b, pow: (a, b) => a ** b, neg: a => -a,
  exp: Math.exp, sqrt: Math.sqrt, rsqrt: a => 1 / Math.sqrt(a), sigmoid: a => 1 / (1 + Math.exp(-a)), trunc: Math.trunc,
  max: Math.max, min: Math.min, where: (yes, a, b) => yes ? a : b, and: (a, b) => +(a && b),
  ge: (a, b) => +(single(a) >= single(b)), le: (a, b) => +(single(a) <= single(b)),
  gt: (a, b) => +(single(a) > single(b)), lt: (a, b) => +(single(a) < single(b)),
};
const constant = v => Object.assign(() => v, { constant: true });

export function compile(formula, fixed) { // a function of the one variable that is not fixed; what does not need it is computed once
  if (typeof formula === "number") return constant(formula);
  if (typeof formula === "string") return formula in fixed ? constant(fixed[formula]) : x => x;
  const act = OPERATIONS[formula[0]], parts = formula.slice(1).map(part => compile(part, fixed)), [a, b, c] = parts;
  if (!act) throw new Error(`Unknown operation ${formula[0]} in a filter's formula.`);
  if (parts.every(part => part.constant)) return constant(act(...parts.map(part => part())));
  if (c) return x => act(a(x), b(x), c(x));
  return b ? x => act(a(x), b(x)) : x => act(a(x));
}
export function gainOfRadius(filter, band) { return compile(filter.radial_gain, band); }
export function gainOfDistance(filter, band, side) { return compile(filter.distance_gain, { ...band, s: side }); }

export function gainOnPlane(filter, band, height, width, radii) { // flat, row by row, DC first
  const side = Math.min(height, width), of = filter.radial_gain ? gainOfRadius(filter, band) : gainOfDistance(filter, band, side);
  const gain = filter.radial_gain ? radii.map(of) : radii.map((_, i) => of(Math.max(Math.floor(i / width), i % width)));
  if (band.keep_dc) gain[0] = 1;
  return gain;
}
export function gainCurve(filter, band, n = 128) { // over the radius; along an axis where the gain does not depend on the radius alone
  if (filter.radial_gain) {
    const x = range(n).map(i => i * Math.SQRT2 / (n - 1));
    return { x, y: x.map(gainOfRadius(filter, band)) };
  }
  const of = gainOfDistance(filter, band, n);
  return { x: range(n).map(i => i / n), y: range(n).map(i => band.keep_dc && !i ? 1 : of(i)) };
}
export const cutoffsOf = (filter, band) => // those within the plane
  filter.cutoffs.map(formula => compile(formula, band)()).filter(r => r > 0 && r < Math.SQRT2);

export function refusal(filter, [low, high]) { // why the filter does not allow these cut-offs, which Python refuses, too
  const bound = filter.below.map(bound => bound === "high" ? high : bound).find(bound => low >= bound);
  return bound === undefined ? null : `The lower cut-off must be below ${bound}, not ${low}.`;
}
export function largestError(filters) { // of the gains here against those that Python computed
  const errors = Object.values(filters).flatMap(({ check, ...filter }) => {
    const of = filter.radial_gain ? gainOfRadius(filter, check.band) : gainOfDistance(filter, check.band, check.side);
    return check.at.map((x, i) => Math.abs(of(x) - check.gain[i]));
  });
  return Math.max(...errors);
}
