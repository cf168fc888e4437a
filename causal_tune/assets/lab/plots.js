// Figures that Python has made with plotly: probes, outliers.
import { html, same } from "./elements.js";
import { titled } from "./views.js";

export async function unpackPlotly(view) { // plotly.js, from gzip; once for all labs
  const text = await new Response(new Blob([view]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  document.head.append(html("script", {}, `(function (define, module, exports) {${text}\n}).call(window)`));
  return window.Plotly;
}
async function draw(card, lab, figure, adapt) {
  if (!figure) return;
  const made = structuredClone(figure), { layout } = made, ink = lab.dark ? "#e6e8eb" : "#1c1e21", plotly = await lab.link.load();
  const template = layout.template.layout, grid = lab.dark ? "#3a3f46" : "#e8e8e8", none = "rgba(0,0,0,0)";
  for (const axis of [template.xaxis, template.yaxis]) axis.gridcolor = grid;
  for (const one of layout.shapes ?? []) if (one.type === "line") one.line.color = ink; // cut-offs
  const margin = { ...template.margin, ...layout.margin, t: Math.max((layout.margin?.t ?? 60) - 30, 30) };
  const width = Math.max(card.width, 640); // no narrower than can be read
  Object.assign(layout, { title: "", font: { color: ink }, margin, width, paper_bgcolor: none, plot_bgcolor: none });
  adapt?.(layout);
  if (same(made, card.made)) return;
  card.made = structuredClone(made); // plotly writes into what it is given
  await plotly.react(card.plotly, made.data, layout, { displaylogo: false, displayModeBar: false });
}
function information(card, lab) {
  const { figures } = lab.link;
  titled(card, "What linear probes tell from one band of the features", figures.of ? `model: ${figures.of}` : "");
  const { x, y } = lab.numbers.curve(lab.band, 2001), half = Math.max(...y) / 2, under = x.filter((_, i) => y[i] > half);
  const span = { x0: under[0], x1: under[under.length - 1] };
  return draw(card, lab, figures.information, ({ shapes }) => shapes.forEach(one => one.type === "rect" && Object.assign(one, span)));
}
function outliers(card, lab) {
  titled(card, "Tokens of outlying norm", `filter: ${lab.link.figures.filter}`);
  return draw(card, lab, lab.link.figures.outliers);
}
export const PLOT_VIEWS = { information, outliers };
