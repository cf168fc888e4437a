// The lab in Jupyter, as an anywidget: state and data are traits, and the model is asked by messages.
import { html } from "./elements.js";
import { openLab } from "./lab.js";
import { unpackPlotly } from "./plots.js";

const ENDED = ["dead", "terminating", "restarting", "autorestarting"]; // a kernel's status after which it does not know this lab

export default {
  render({ model, el }) {
    let lab, plotly;
    const kernel = model.widget_manager?.kernel; // hosts that do not show their kernel are believed to have one
    let ended = kernel === null;
    const heed = (_, status) => { ended ||= ENDED.includes(status); };
    kernel?.statusChanged?.connect(heed);
    const live = () => !ended && !kernel?.isDisposed;
    const link = {
      live, gone: () => !live(), get figures() { return model.get("_figures"); }, said: () => model.get("_message").text,
      told(values) { model.set(values); model.save_changes(); },
      ask: content => model.send(content),
      load: () => plotly ||= window.Plotly ?? new Promise(done => { link.plotly = done; link.ask({ ask: "plotly" }); }),
    };
    const start = () => {
      lab?.close();
      const data = model.get("_data"), root = html("div");
      el.replaceChildren(root);
      lab = openLab(root, data, Object.fromEntries(data.names.map(name => [name, model.get(name)])), link);
      said();
    };
    const said = () => {
      const { text, wrong, busy, of } = model.get("_message");
      lab.say(wrong ? text : "", text || undefined);
      lab.showProgress(of === "measure" ? { text, wrong, busy } : {});
    };
    const heard = {
      plotly: (_, [packed]) => link.plotly(unpackPlotly(packed)),
      segmentation: ({ key, kind, ...part }) => lab.answer(key, part),
      passport: part => lab.passport?.(part),
      cause: message => lab.patched(message),
    };
    const hear = (content, buffers) => heard[content.kind]?.(content, buffers);
    const moves = model.get("_data").names.map(name => [`change:${name}`, () => lab.set({ [name]: model.get(name) }, true)]);
    const measured = () => ["information", "outliers"].forEach(lab.draw);
    const events = [...moves, ["msg:custom", hear], ["change:_data", start], ["change:_message", said], ["change:_figures", measured]];
    for (const [name, act] of events) model.on(name, act);
    start();
    return () => { for (const [name, act] of events) model.off(name, act); kernel?.statusChanged?.disconnect(heed); lab.close(); };
  },
};
