document.body.append('first')
import.meta.hot?.accept()
