// The lab in a file: the data stand in the page, the state in its address, and there is nothing to ask.
import { html, same } from "./elements.js";
import { stateFits } from "./controls.js";
import { embedded } from "./data.js";
import { openLab } from "./lab.js";
import { unpackPlotly } from "./plots.js";

async function openPage(root) {
  const data = embedded("data"), save = new URLSearchParams(location.search).has("save");
  let plotly;
  const read = () => {
    try {
      const given = JSON.parse(decodeURIComponent(location.hash.slice(1)) || "{}");
      return Object.fromEntries(Object.entries(given).filter(([name, v]) => stateFits(data, name, v)));
    } catch { return {}; }
  };
  const link = {
    live: () => false, figures: data.figures, told() {}, ask() {}, load: () => plotly ||= unpackPlotly(embedded("plotly")),
    settled(state) {
      const away = Object.fromEntries(Object.entries(state).filter(([name, v]) => !same(v, data.state[name])));
      const hash = Object.keys(away).length ? "#" + encodeURIComponent(JSON.stringify(away)) : "";
      if (hash !== location.hash) history.replaceState(null, "", hash || location.pathname + location.search);
    },
  };
  if (save) document.body.classList.add("ct-save");
  const lab = openLab(root, data, { ...data.state, ...read() }, link);
  window.addEventListener("hashchange", () => lab.set({ ...data.state, ...read() }));
  document.body.dataset.ready = "yes";
  if (save) document.body.append(html("pre", { id: "pictures" }, JSON.stringify(await lab.pictures())));
  return lab;
}
window.lab = await openPage(document.getElementById("lab"));
