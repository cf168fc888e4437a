// A folder that is dropped on the lab: its files go to Python one by one.
async function filesOf(entry, folder = "") { // [folder, file], folders read to their end
  if (entry.isFile) return [[folder, await new Promise((done, no) => entry.file(done, no))]];
  const reader = entry.createReader(), found = [];
  for (let some; (some = await new Promise((done, no) => reader.readEntries(done, no))).length;) found.push(...some);
  return (await Promise.all(found.map(one => filesOf(one, entry.name)))).flat();
}
export function acceptFiles(lab) {
  const { root, link } = lab;
  root.ondragover = e => {
    if (!link.live() || !e.dataTransfer.types.includes("Files")) return;
    e.preventDefault();
    root.classList.add("ct-over");
  };
  root.ondragleave = () => root.classList.remove("ct-over");
  root.ondrop = async e => {
    root.classList.remove("ct-over");
    if (!link.live()) return;
    e.preventDefault();
    const entries = [...e.dataTransfer.items].map(item => item.webkitGetAsEntry()).filter(Boolean), drop = String(Math.random());
    const found = (await Promise.all(entries.map(entry => filesOf(entry, "dropped")))).flat();
    for (const [i, [folder, file]] of found.entries()) {
      lab.say("", `Sending ${i + 1} of ${found.length} files …`);
      link.ask({ ask: "file", drop, folder, name: file.name, left: found.length - 1 - i }, [await file.arrayBuffer()]);
    }
  };
}
