// What Python sent, unpacked: energies, projections and norms of causal_tune.lab.packing.
import { range } from "./elements.js";

const bytesOf = view => new Uint8Array(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));

export function unpackEnergy({ low, step, codes }) { // code 0 is NaN, 1 is none
  const table = Float64Array.from({ length: 2 ** 16 }, (_, i) => i > 1 ? Math.exp(low + step * (i - 2)) : i ? 0 : NaN);
  return Float64Array.from(new Uint16Array(bytesOf(codes).buffer), code => table[code]);
}
export function unpackImage(packed, block, count) { // of one image by one model: three planes of projections, norms, outliers
  const codes = new Int8Array(bytesOf(packed.maps).buffer, 3 * count * block, 3 * count), peak = packed.peaks[block];
  const z = Float64Array.from(codes, q => q === -128 ? NaN : peak * Math.sign(q) * (q / 127) ** 2);
  const norms = bytesOf(packed.norms).subarray(count * block, count * (block + 1)), [low, high] = packed.spans[block];
  return { maps: range(3).map(c => z.subarray(c * count, (c + 1) * count)), span: [low, high], outliers: packed.outliers[block],
           norms: Float64Array.from(norms, q => q === 255 ? NaN : low + (high - low) * q / 254) };
}
export function embedded(id) { // JSON in the page; bytes come as { base64 }
  const bytes = v => new DataView(Uint8Array.from(atob(v.base64), c => c.charCodeAt(0)).buffer);
  return JSON.parse(document.getElementById(id).textContent, (_, v) => v?.base64 === undefined ? v : bytes(v));
}
