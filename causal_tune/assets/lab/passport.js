// The passport of the model that is shown: asked of the kernel, offered as a file and as a card.
import { button, html } from "./elements.js";

export function passportButton(lab) { // a line of its own; `lab.passport` takes the answer
  const said = html("span", { role: "status" }), link = (text, kind, type, name) =>
    html("a", { href: URL.createObjectURL(new Blob([text], { type })), download: `${name}.${kind}` }, kind === "json" ? "passport (JSON)" : "card (HTML)");
  const ask = button("Passport", () => {
    if (!lab.link.live()) return void (said.textContent = "Making a passport needs the model, and the kernel is gone.");
    ask.disabled = true;
    said.textContent = "Making the passport: fixed street scenes in five weathers go through the model ...";
    lab.link.ask({ ask: "passport" });
  }, { title: "What this model does to the spectrum, as a file and a card" });
  lab.passport = ({ name, json, card, wrong }) => {
    ask.disabled = false;
    said.replaceChildren(...wrong ? [wrong] : [`${name}: `, link(json, "json", "application/json", "passport"), " · ", link(card, "html", "text/html", "passport")]);
  };
  return html("p", { class: "ct-line" }, ask, said);
}
