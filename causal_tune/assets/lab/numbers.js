// The lab's arithmetic, in double precision: what a filter removes and keeps, spectra by ring, the DCT.
// height, width: the patch grid; k, l: row and column of a coefficient; planes are flat, row by row, DC first.
import { range, total } from "./elements.js";
import { unpackEnergy, unpackImage } from "./data.js";
import { cutoffsOf, gainCurve, gainOnPlane, largestError } from "./filters.js";

const sumFrom = (plane, first) => { let all = 0; for (let i = first; i < plane.length; i++) all += plane[i]; return all; };
const cosine = (n, k, j) => Math.cos(Math.PI * k * (2 * j + 1) / (2 * n)) * Math.sqrt((k ? 2 : 1) / n);
const cosines = n => range(n).map(k => Float64Array.from({ length: n }, (_, j) => cosine(n, k, j)));
const once = make => { // bands are made anew, never changed
  let last, result;
  return band => band === last ? result : (result = make(last = band));
};

export function numbersOf(data) {
  const [height, width] = data.grid, count = height * width, blocks = data.layers.length;
  const energies = unpackEnergy(data.energy); // (models, domains, blocks, height, width)
  const rowOf = (domain, model = data.models[0]) => data.models.indexOf(model) * data.domains.length + data.domains.indexOf(domain);
  const energyOf = (domain, block, model) => energies.subarray((rowOf(domain, model) * blocks + block) * count).subarray(0, count);
  if (!(largestError(data.filters) <= 1e-5)) throw new Error("The gains of this page differ from those that Python computed.");

  // radii in single precision, as Python compares them
  const f32 = Math.fround;
  const RADII = Float64Array.from({ length: count },
    (_, i) => f32(Math.hypot(f32(Math.floor(i / width) / height), f32(i % width / width))));
  const filterOf = band => data.filters[band.filter];
  const gain = once(band => gainOnPlane(filterOf(band), band, height, width, RADII));
  const curve = (band, n) => gainCurve(filterOf(band), band, n), cutoffs = band => cutoffsOf(filterOf(band), band);
  const removed = once(band => gain(band).map(g => (1 - g) ** 2));

  const zoneEdges = band => { const own = cutoffs(band); return own.length === 2 ? own : data.zones; };
  const TOTALS = range(energies.length / count).map(i => sumFrom(energies.subarray(i * count, (i + 1) * count), 1));
  const shares = once(band => { // [all, low, mid, high][model and domain][block], without DC
    const part = removed(band), edges = zoneEdges(band), zone = RADII.map(r => edges.filter(edge => r >= edge).length);
    const out = range(4).map(() => range(TOTALS.length / blocks).map(() => []));
    TOTALS.forEach((all, at) => {
      const sums = [0, 0, 0];
      for (let i = 1, j = at * count + 1; i < count; i++, j++) sums[zone[i]] += energies[j] * part[i];
      [total(sums), ...sums].forEach((sum, p) => out[p][Math.floor(at / blocks)].push(sum / all)); // 0 / 0 is NaN: no energy
    });
    return out;
  });
  const RING = RADII.map(r => Math.min(Math.floor(r / Math.SQRT2 * data.rings), data.rings - 1));
  const sumRings = plane => { const out = Array(data.rings).fill(0); for (let i = 1; i < count; i++) out[RING[i]] += plane[i]; return out; };
  const COUNTS = sumRings(RADII.map(() => 1)), SUMS = sumRings(RADII), FILLED = range(data.rings).filter(i => COUNTS[i]);
  const radii = FILLED.map(i => SUMS[i] / COUNTS[i]);
  const profile = (plane, share) => { // mean energy in each ring, or the ring's share in percent
    const sums = sumRings(plane), all = total(sums);
    return FILLED.map(i => share ? 100 * sums[i] / all : sums[i] / COUNTS[i]);
  };
  function change(a, b, share) { // per coefficient: dB, or points of the energy without DC
    if (!share) return a.map((e, i) => e > 0 && b[i] > 0 ? 10 * Math.log10(e / b[i]) : NaN);
    const [x, y] = [a, b].map(plane => Math.max(sumFrom(plane, 1), 1e-30));
    return a.map((e, i) => i ? 100 * (e / x - b[i] / y) : 0);
  }
  const BY_RADIUS = range(count).slice(1).sort((i, j) => RADII[i] - RADII[j]);
  function radiusBelow(plane, band, part = .9) { // the radius below which this part of what is removed lies
    const weight = removed(band), all = sumFrom(plane.map((e, i) => e * weight[i]), 1);
    let sum = 0;
    return RADII[BY_RADIUS.find(i => (sum += plane[i] * weight[i]) >= part * all)];
  }

  const ROWS = cosines(height), COLUMNS = cosines(width);
  function transform(x, back) { // DCT, rows and then columns; back: its inverse
    const y = new Float64Array(count), out = new Float64Array(count);
    for (let k = 0; k < height; k++) for (let i = 0; i < height; i++) {
      const c = back ? ROWS[i][k] : ROWS[k][i];
      for (let j = 0; j < width; j++) y[k * width + j] += c * x[i * width + j];
    }
    for (let l = 0; l < width; l++) for (let j = 0; j < width; j++) {
      const c = back ? COLUMNS[j][l] : COLUMNS[l][j];
      for (let k = 0; k < height; k++) out[k * width + l] += c * y[k * width + j];
    }
    return out;
  }
  function parts(maps, band) { // projections before, kept, removed
    const g = gain(band), kept = maps.map(z => transform(transform(z).map((v, i) => v * g[i]), true));
    return [maps, kept, maps.map((z, c) => z.map((v, i) => v - kept[c][i]))];
  }
  const pattern = (k, l) => Float64Array.from({ length: count }, (_, i) => ROWS[k][Math.floor(i / width)] * COLUMNS[l][i % width]);
  const image = (packed, block) => unpackImage(packed, block, count);
  return { height, width, rowOf, energyOf, gain, curve, cutoffs, zoneEdges, removed, shares, radii, profile, change, radiusBelow,
           transform, parts, pattern, image };
}
