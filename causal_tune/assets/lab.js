// plotly measures its place again only when the window says so; a card may change without the window.
export default {
  render({ el }) {
    setTimeout(() => {
      const watch = new ResizeObserver(() => window.dispatchEvent(new Event("resize")));
      document.querySelectorAll(".ct-lab").forEach(lab => watch.observe(lab));
    }, 50);
  }
}
