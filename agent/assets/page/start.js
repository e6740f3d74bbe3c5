// Before all other files: where one of them does not come, the page is asked for anew. A browser gives up what waits for a
// connection when an address of its host changes, and asks for no file a second time by itself.

addEventListener("error", ({ target }) => {
  if (!(target instanceof Element) || !target.matches("script, link")) return;
  const words = document.getElementById("connection-text");
  if (words) words.textContent = "a file of this page did not come; it is asked for anew";
  setTimeout(() => location.reload(), 2_000);
}, { capture: true, once: true });
