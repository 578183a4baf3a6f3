// Pass dropped or chosen files and folders to NiceGUI's uploader, named by their paths.
(() => {
  const AT_A_TIME = 200; // files per request
  // NiceGUI uses only the last part of a path; an encoded path has a single part
  const named = (file, path) =>
    new File([file], encodeURIComponent(path), {type: file.type, lastModified: file.lastModified});
  const promised = (work) => new Promise(work);

  const walk = async (entry, above) => {
    const path = above + entry.name;
    if (entry.isFile) {
      const file = await promised((done, failed) => entry.file(done, failed));
      return [named(file, path)];
    }
    const reader = entry.createReader(), files = [];
    for (;;) {
      const batch = await promised((done, failed) => reader.readEntries(done, failed));
      if (!batch.length) return files;
      for (const child of batch) files.push(...(await walk(child, path + "/")));
    }
  };

  const hand = (files, uploader) => {
    for (let at = 0; at < files.length; at += AT_A_TIME)
      getElement(uploader).$refs.qRef.addFiles(files.slice(at, at + AT_A_TIME));
  };

  window.lakehouseDrop = async (event, uploader) => {
    const items = [...event.dataTransfer.items].filter((item) => item.kind === "file");
    const entries = items.map((item) => item.webkitGetAsEntry?.() || item.getAsFile());
    const files = [];
    for (const entry of entries)
      files.push(...(entry instanceof File ? [named(entry, entry.name)] : await walk(entry, "")));
    hand(files, uploader);
  };

  window.lakehouseChoose = (uploader, folder) => {
    const input = document.createElement("input");
    Object.assign(input, {type: "file", multiple: true, webkitdirectory: folder});
    input.onchange = () => {
      const files = [...input.files];
      hand(files.map((file) => named(file, file.webkitRelativePath || file.name)), uploader);
    };
    input.click();
  };
})();
