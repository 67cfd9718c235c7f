import { render } from "preact";
import "./styles/base.css";
import "./styles/parts.css";
import "./styles/screens.css";
import { App } from "./app";
import { spoken } from "./i18n";

void spoken().then(() => {
  const place = document.getElementById("app")!;
  place.replaceChildren(); // what index.html shows until now
  render(<App />, place);
});
